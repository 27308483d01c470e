"""How much memory llama.cpp takes for a model, by the headers of its files: never less, and not much more.

Measured with b11669 on x86-64 (tests/engines/test_memory.py). How large the cache is: llama.cpp's src/llama-kv-cache.cpp and
llama-kv-cache-iswa.cpp. The buffers of a batch are those that it reserves for its largest graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.base.redact import printable
from aikit_nix.sources.gguf import Facts, Shape
from aikit_nix.sources.role import Role

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
CHECKPOINTS = 32  # --ctx-checkpoints, for each slot
_SERVED = (Role.MODEL, Role.DRAFT)
_PADDING = 256  # the cache's cells are so many, or a multiple


@dataclass(frozen=True)
class Use:
    """What a served model takes, in bytes. `weights` are the files, `cache` that of keys and values for all slots.

    `checkpoint` is what the server keeps, beside that, of the layers with a window each time that it has read a prompt.
    """

    weights: int
    cache: int
    rest: int
    checkpoint: int = 0

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
    """What a server is told that its memory depends on. `context` is in tokens for all slots together; with `full` the
    layers with a window keep all of it, too.
    """

    context: int
    slots: int = 1
    batch: int = 512
    keys: str = "f16"
    values: str = "f16"
    full: bool = False


def use(files: Iterable[tuple[int | None, Facts | None]], settings: Settings) -> Use | None:
    """For a model of these files, by size in bytes and header; None where a header does not say enough.

    The first file is the model (or its first shard); the others are its shards, adapters, projectors, and its draft, which
    has a cache of its own.
    """
    found = list(files)
    sizes = [size for size, _ in found if size is not None]
    if not found or len(sizes) < len(found) or found[0][1] is None or found[0][1].shape is None:
        return None
    cache, rest, checkpoint = 0, PROGRAM, 0
    for _, facts in found:
        if facts and facts.shape:
            rest += facts.shape.repacked
            if facts.role in _SERVED and facts.shape != Shape(repacked=facts.shape.repacked):  # no later shard
                whole, window = _cache(facts.shape, settings)
                cache += whole + window
                checkpoint += 0 if settings.full else window
                rest += _buffers(facts.shape, settings)
                settings = replace(settings, keys="f16", values="f16")  # the draft's
    return Use(sum(sizes), cache, rest, checkpoint)


def _cells(shape: Shape, settings: Settings) -> tuple[int, int]:
    """Of the layers that see all of the context, and of those that see a window."""
    cells = _padded(settings.context)
    each = settings.context // settings.slots
    window = settings.slots * _padded(min(each, shape.window + settings.batch))
    return cells, cells if settings.full else window


def _cache(shape: Shape, settings: Settings) -> tuple[int, int]:
    """Of the same layers."""
    keys, values = (CACHE_TYPES.get(kind, CACHE_TYPES["f16"]) for kind in (settings.keys, settings.values))
    cells, window = _cells(shape, settings)
    whole = cells * (keys * shape.keys + values * shape.values)
    return int(whole), int(window * (keys * shape.window_keys + values * shape.window_values))


def _buffers(shape: Shape, settings: Settings) -> int:
    """Those of a batch, the scores of a token and what is sampled from them, and the tables of the tokenizer."""
    cells, window = _cells(shape, settings)
    buffers = settings.batch * (4 * shape.buffers + 2 * (cells + (window if shape.window else 0)))
    return buffers + settings.slots * shape.tokens * 16 + _TOKEN * (shape.tokens + shape.merges)


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
