"""How much memory llama.cpp takes for a model, by the headers of its files: never less, and not much more.

Measured with b11669 on x86-64 (tests/engines/test_memory.py). How large the cache is: llama.cpp's src/llama-kv-cache.cpp and
llama-kv-cache-iswa.cpp. The buffers of a batch are those that it reserves for its largest graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.base.redact import printable
from aikit_nix.sources.gguf import Facts

MIB = 1 << 20
# More than the largest machines have: such a context is a mistake.
_MOST = 4 << 40
_STEP = 256 * MIB  # what a limit is a multiple of

# The types of a number in the cache, and its bytes; all exact as floats, of which a cache of any size is a multiple.
CACHE_TYPES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q4_0": 18 / 32,
    "q4_1": 20 / 32,
    "iq4_nl": 18 / 32,
    "q5_0": 22 / 32,
    "q5_1": 24 / 32,
}
PROGRAM = 32 * MIB  # the server, its libraries and its graphs, without a model
_TOKEN = 224  # bytes of a token or merge in the tables of a tokenizer
_PADDING = 256  # the cache's cells are so many, or a multiple


@dataclass(frozen=True)
class Use:
    """What a served model takes, in bytes. `weights` are the files, `cache` that of keys and values for all slots."""

    weights: int
    cache: int
    rest: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.rest


@dataclass(frozen=True)
class Memory:
    """What a server takes in bytes: `request` without a cache of prompts, `limit` with it."""

    request: int
    limit: int


@dataclass(frozen=True)
class Settings:
    """What a server is told that its memory depends on. `context` is in tokens for all slots together."""

    context: int
    slots: int = 1
    batch: int = 512
    keys: str = "f16"
    values: str = "f16"


def use(files: Iterable[tuple[int | None, Facts | None]], settings: Settings) -> Use | None:
    """For a model of these files, by size in bytes and header; None where a header does not say enough.

    The first file is the model (or its first shard), whose header counts; the others are its shards, adapters, projectors.
    """
    found = list(files)
    sizes = [size for size, _ in found if size is not None]
    shape = found[0][1].shape if found and found[0][1] else None
    if shape is None or len(sizes) < len(found):
        return None
    keys, values = (CACHE_TYPES.get(kind, CACHE_TYPES["f16"]) for kind in (settings.keys, settings.values))
    cells = _padded(settings.context)
    each = settings.context // settings.slots
    window = settings.slots * _padded(min(each, shape.window + settings.batch))
    cache = cells * (keys * shape.keys + values * shape.values)
    cache += window * (keys * shape.window_keys + values * shape.window_values)
    buffers = settings.batch * (4 * shape.buffers + 2 * (cells + (window if shape.window else 0)))
    repacked = sum(facts.shape.repacked for _, facts in found if facts and facts.shape)
    # The scores of a token, and what is sampled from them.
    outputs = settings.slots * shape.tokens * 16
    tables = _TOKEN * (shape.tokens + shape.merges)
    return Use(sum(sizes), int(cache), repacked + buffers + outputs + tables + PROGRAM)


def require(use: Use | None, name: str, context: int, at: Position) -> None:
    """Raise AikitError for a model's context that no machine holds."""
    if use and use.total > _MOST:
        said = (
            f"config {name}: a context of {context} tokens takes {use.total >> 40} TiB of memory, which no machine has"
        )
        raise AikitError(Diagnostic(Severity.ERROR, "memory", printable(f"{said}: set a smaller `context_size`"), at))


def limit(size: int) -> int:
    """A size that a limit may have, in bytes, from that one on."""
    return -(-size // _STEP) * _STEP


def _padded(cells: int) -> int:
    return -(-cells // _PADDING) * _PADDING
