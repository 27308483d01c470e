"""How many requests llama-server serves at once, how long they may be, and what memory that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.engines import memory
from aikit_nix.engines.llama_server.settings import DEFAULT_BATCH, DEFAULT_CONTEXT
from aikit_nix.engines.llama_server.translation import ServedModel
from aikit_nix.engines.memory import MIB, Memory
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.names import shards

# Of several models llama-server keeps so many loaded (--models-max).
_LOADED = 4
_UNKNOWN_CACHE = 256 * MIB
_FILES = ("mmproj", "spec-draft-model", "lora")


def environment(cache: int) -> Mapping[str, str]:
    """llama-server's settings where the config and the user's arguments say nothing.

    Its own defaults are four slots that share the whole context that the model was trained with, which two long requests
    exceed, and a cache of 8 GiB for prompts. `cache` is in bytes.
    """
    return {
        "LLAMA_ARG_CTX_SIZE": str(DEFAULT_CONTEXT),
        "LLAMA_ARG_N_PARALLEL": "1",
        "LLAMA_ARG_CACHE_RAM": str(cache // MIB),
    }


def plan(
    aikitfile: Aikitfile, headers: Mapping[str, Facts], models: Sequence[ServedModel]
) -> tuple[Memory | None, int]:
    """The server's memory, None where a header does not tell, and how much of it each model's cache of prompts may have.

    Raises AikitError for a context that no machine holds.
    """
    sizes = {model.path: model.pin.size if model.pin else None for model in aikitfile.models}
    found = [memory.use(_files(sizes, headers, model), _settings(model)) for model in models]
    each = list(zip(models, found, strict=True))
    for model, use in each:
        memory.require(use, model.name, _settings(model).context, model.at)
    known = sorted((use.total for use in found if use), reverse=True)[:_LOADED]
    kept = [
        max(_number(model, "ctx-checkpoints", memory.CHECKPOINTS), 0) * use.checkpoint for model, use in each if use
    ]
    checkpoints = sum(sorted(kept, reverse=True)[:_LOADED])
    if not known or len(known) < min(len(models), _LOADED):
        return None, _UNKNOWN_CACHE
    total = sum(known) + (memory.PROGRAM if len(models) > 1 else 0)
    limit = memory.limit(total * 5 // 4 + checkpoints)
    given = [int(value) for model in models if (value := dict(model.options).get("cache-ram"))]
    cache = (limit - total - checkpoints) // len(known)
    if given:  # by the config, which knows better: -1 is no bound, and llama-server's own is 8 GiB
        limit = (
            total + checkpoints + len(known) * max(cache, *(8192 * MIB if size < 0 else size * MIB for size in given))
        )
    return Memory(total, limit), cache


def _number(model: ServedModel, option: str, otherwise: int) -> int:
    value = dict(model.options).get(option)
    return int(value) if value else otherwise


def _settings(model: ServedModel) -> memory.Settings:
    options = dict(model.options)
    return memory.Settings(
        max(_number(model, "ctx-size", DEFAULT_CONTEXT), 1),
        max(_number(model, "parallel", 1), 1),
        max(_number(model, "ubatch-size", DEFAULT_BATCH), 1),
        options.get("cache-type-k") or "f16",
        options.get("cache-type-v") or "f16",
        "swa-full" in options,
    )


def _files(
    sizes: Mapping[str, int | None], headers: Mapping[str, Facts], model: ServedModel
) -> list[tuple[int | None, Facts | None]]:
    """The model, its other shards, and what is loaded beside it, as memory.use takes them."""
    options = dict(model.options)
    paths = shards(options["model"] or "")
    paths += [path for option in _FILES if (path := options.get(option))]
    paths += [each.rpartition(":")[0] for each in (options.get("lora-scaled") or "").split(",") if each]
    return [(sizes.get(path), headers.get(path)) for path in paths]
