"""What LocalAI is told: the config as it is, all settings in the environment.

AIKit writes `Entrypoint: local-ai` and the settings as `Cmd` (`--debug`, `--config-file=/config.yaml`), which
`docker run IMAGE --address :9090` replaces: the models are gone. In the environment they stay, and subcommands
(`docker run IMAGE models list`) work too. LocalAI reads the same settings from both: core/cli/run.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.localai_config import LLAMA_CPP, ConfigEntry
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic
from aikit_nix.engines import CONFIG_PATH, Launch, companions, memory
from aikit_nix.engines.memory import MIB, Memory, Settings
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.names import shards

_SERVER = 160 * MIB  # its own program beside the backends: 111 to 153 MiB were measured
_BATCH = 512
# What a model gets without `context_size`, if it was trained with so much: core/config/context_fit.go
_CONTEXT = 8192


def launch(aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> Launch:
    """Raises AikitError where LocalAI would stop at the config, or serve a part of a model as a model."""
    env: dict[str, str] = {}
    warnings: tuple[Diagnostic, ...] = ()
    taken = None
    if aikitfile.debug:
        env["DEBUG"] = "true"
    if config := localai_config.read(aikitfile):
        entries = config.require()
        env["CONFIG_FILE"] = CONFIG_PATH
        problems = tuple(companions.misnamed(entries, headers))
        warnings = tuple(companions.unnamed(aikitfile, entries, headers, models=False))
        taken = _memory(aikitfile, headers, entries)
    else:
        problems = tuple(companions.unserved(aikitfile, headers))
    if problems:
        raise AikitError(*problems)
    if aikitfile.load_to_memory:
        env["LOCALAI_LOAD_TO_MEMORY"] = ",".join(name.value for name in aikitfile.load_to_memory)
    probe = ("8080", "/readyz", "--address", "LOCALAI_ADDRESS")
    return Launch(env=env, probe=probe, warnings=warnings, memory=taken)


def _memory(aikitfile: Aikitfile, headers: Mapping[str, Facts], entries: Sequence[ConfigEntry]) -> Memory | None:
    """What LocalAI takes with all models loaded, as it unloads none; None where a header does not tell, or for other backends.

    It keeps prompts without a bound where the config has no `cache_ram`: then the limit leaves them as much as the model.
    """
    sizes = {model.path: model.pin.size if model.pin else None for model in aikitfile.models}
    total, prompts = _SERVER, 0
    for entry in entries:
        if entry.is_on("disabled") or entry.words("alias"):
            continue
        paths = [f"/models/{value.node.text}" for value in entry.files()]
        known = entry.words("backend") in LLAMA_CPP and entry.words("parameters.model")
        header = headers.get(paths[0]) if known else None
        settings = _settings(entry, header) if header else None
        paths = [*(path for first in paths[:1] for path in shards(first)), *paths[1:]]
        use = memory.use([(sizes.get(path), headers.get(path)) for path in paths], settings) if settings else None
        if use is None or settings is None:
            return None
        memory.require(use, entry.name, settings.context, entry.at)
        options = _options(entry)
        bound = options.get("cache_ram", -1)
        kept = options.get("ctx_checkpoints", options.get("n_ctx_checkpoints", memory.CHECKPOINTS))
        total, prompts = (
            total + use.total,
            prompts + (use.total if bound < 0 else bound * MIB) + max(kept, 0) * use.checkpoint,
        )
    return Memory(total, memory.limit(total + prompts))


def _settings(entry: ConfigEntry, header: Facts) -> Settings:
    """What its backend is told: core/backend/options.go. All slots share one context."""

    def number(key: str) -> int:
        return entry.values[key].integer() if key in entry.values else 0

    trained = header.context_length or _CONTEXT
    asked = number("context_size")
    context = trained if asked < 0 else asked or min(trained, _CONTEXT)
    options = _options(entry)
    single = entry.is_on("embeddings") or entry.is_on("reranking")
    batch = number("parameters.batch") or (context if single else _BATCH)
    return Settings(
        context,
        max(options.get("parallel", options.get("n_parallel", 1)), 1),
        max(options.get("ubatch", options.get("n_ubatch", batch)), 1),
        entry.words("cache_type_k") or "f16",
        entry.words("cache_type_v") or "f16",
        any(re.fullmatch("swa_full(:(true|1|yes|on|enabled))?|--swa-full", text) for text in _texts(entry)),
    )


def _texts(entry: ConfigEntry) -> tuple[str, ...]:
    return entry.values["options"].texts() if "options" in entry.values else ()


def _options(entry: ConfigEntry) -> dict[str, int]:
    """Those of the backend's `options` that are whole numbers."""
    pairs = (item.partition(":")[::2] for item in _texts(entry))
    return {name: int(value) for name, value in pairs if re.fullmatch("-?[0-9]{1,9}", value, re.ASCII)}
