"""LocalAI's model configs translated to llama-server's settings.

LocalAI's keys: core/config/model_config.go and core/schema/prediction.go of LocalAI v4.6.2. llama-server's
options: `llama-server --help` of llama.cpp b9842 (nixpkgs) and b11669 (Debian); only options that both have are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aikit_nix import yamltree
from aikit_nix.aikitfile import Aikitfile, Located
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity

PRESETS_PATH = "/models.ini"

# AIKit's images listen on this port too. The image is complete, so nothing is ever downloaded.
_BASE_ARGS = ("--host", "0.0.0.0", "--port", "8080", "--offline")  # noqa: S104

PARAMETERS = {
    "batch": "batch-size",
    "frequency_penalty": "frequency-penalty",
    "ignore_eos": "ignore-eos",
    "max_tokens": "predict",
    "min_p": "min-p",
    "n_keep": "keep",
    "presence_penalty": "presence-penalty",
    "repeat_last_n": "repeat-last-n",
    "repeat_penalty": "repeat-penalty",
    "rope_freq_base": "rope-freq-base",
    "rope_freq_scale": "rope-freq-scale",
    "seed": "seed",
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "typical_p": "typical",
}
SETTINGS = {
    "cache_type_k": "cache-type-k",
    "cache_type_v": "cache-type-v",
    "chat_template_kwargs": "chat-template-kwargs",
    "context_size": "ctx-size",
    "embeddings": "embeddings",
    "flash_attention": "flash-attn",
    "gpu_layers": "n-gpu-layers",
    "grammar": "grammar",
    "main_gpu": "main-gpu",
    "mirostat": "mirostat",
    "mirostat_eta": "mirostat-lr",
    "mirostat_tau": "mirostat-ent",
    "no_kv_offloading": "no-kv-offload",
    "reranking": "reranking",
    "rope_scaling": "rope-scaling",
    "tensor_split": "tensor-split",
    "threads": "threads",
    "yarn_attn_factor": "yarn-attn-factor",
    "yarn_beta_fast": "yarn-beta-fast",
    "yarn_beta_slow": "yarn-beta-slow",
    "yarn_ext_factor": "yarn-ext-factor",
}
# These name a file of the image.
FILES = {"mmproj": "mmproj", "lora_adapter": "lora"}
# These say what llama-server does anyway.
_DEFAULTS: Mapping[str, object] = {"mmap": True, "f16": True, "embeddings": False, "reranking": False}
_FLAGS = frozenset({"embeddings", "ignore-eos", "no-kv-offload", "reranking"})
_BACKENDS = frozenset({"", "llama", "llama-cpp", "llama-cpp-fallback", "llama-stable"})

# Shard 2 and later of a split GGUF: llama.cpp finds them from the first.
_LATER_SHARD = re.compile(r".*-(?!00001-of)\d{5}-of-\d{5}\.gguf")


@dataclass(frozen=True)
class Served:
    """What the image runs: arguments, presets file (empty for one model), and what could not be kept."""

    args: tuple[str, ...]
    presets: str
    warnings: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class _Model:
    """One served model: its name in the API and its options, in llama-server's words."""

    name: str
    options: Mapping[str, str]


def translate(aikitfile: Aikitfile) -> Served:
    """llama-server's arguments for an aikitfile. Raises AikitError where a config cannot be served."""
    translation = _Translation(aikitfile)
    models = translation.models()
    if translation.errors:
        raise AikitError(*translation.errors)
    args = [*_BASE_ARGS, *(["--verbose"] if aikitfile.debug else [])]
    presets = ""
    if len(models) == 1:
        args += ["--alias", models[0].name]
        for option, value in models[0].options.items():
            args += [f"--{option}"] if option in _FLAGS else [f"--{option}", value]
    else:
        # Router mode: one process a model, started when it is first asked for.
        args += ["--models-preset", PRESETS_PATH]
        loaded = {name.value for name in aikitfile.load_to_memory}
        presets = "\n".join(_section(model, load=model.name in loaded) for model in models)
    return Served(tuple(args), presets, tuple(translation.warnings))


def _section(model: _Model, *, load: bool) -> str:
    lines = [f"{option} = {value}\n" for option, value in model.options.items()]
    lines += ["load-on-startup = true\n"] if load else []
    return f"[{model.name}]\n" + "".join(lines)


class _Translation:
    """Collects errors and warnings on the way."""

    def __init__(self, aikitfile: Aikitfile) -> None:
        self.aikitfile = aikitfile
        self.paths = {model.path for model in aikitfile.models}
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    def models(self) -> list[_Model]:
        """The models of the config, or without one every model file under its aikitfile name."""
        config = self.aikitfile.config
        if config is None:
            found = [
                (_Model(model.name.value, {"model": model.path}), model.name.at)
                for model in self.aikitfile.models
                if not _LATER_SHARD.fullmatch(model.path)
            ]
        else:
            found = [(model, config.at) for model in self._configured(config)]
        for model, at in found:
            self._check_name(model, at, len(found))
        return [model for model, _ in found]

    def _configured(self, config: Located[str]) -> Iterator[_Model]:
        import yaml

        at = config.at
        try:
            yamltree.compose(config.value, "config")  # bounds depth and size, which PyYAML does not
            entries = yaml.load(config.value, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        except (yaml.YAMLError, ValueError, AikitError) as exception:
            problem = getattr(exception, "problem", None) or exception
            return self._refuse(f'config is not valid YAML ({problem}): mend it, see --escapes for `\\"`', at)
        entries = [entries] if isinstance(entries, dict) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return self._refuse("config must be a list of LocalAI model configs: begin it with `- name: …`", at)
        for entry in entries:
            yield from self._entry(entry, at)

    def _entry(self, entry: dict[str, Any], at: Position) -> Iterator[_Model]:
        name = entry.get("name")
        parameters = entry.get("parameters") or {}
        if not isinstance(name, str) or not isinstance(parameters, dict):
            return self._refuse("each config needs a `name` (a string) and `parameters` (a map)", at)
        if str(entry.get("backend") or "") not in _BACKENDS:
            return self._refuse(
                f"config {name}: llama-server has no backend {entry['backend']!r}: use `--engine localai`", at
            )
        options = dict(self._file(name, "parameters.model", "model", parameters.get("model"), at))
        for key, value in entry.items():
            if key not in ("name", "backend", "parameters"):
                options |= self._setting(name, str(key), SETTINGS, value, at)
        for key, value in parameters.items():
            if key != "model":
                options |= self._setting(name, str(key), PARAMETERS, value, at, "parameters.")
        yield _Model(name, options)

    def _setting(
        self, name: str, key: str, table: Mapping[str, str], value: object, at: Position, prefix: str = ""
    ) -> dict[str, str]:
        if value is None or (key in _DEFAULTS and value == _DEFAULTS[key]):
            return {}
        if key in FILES and not prefix:
            return self._file(name, key, FILES[key], value, at)
        option = table.get(key)
        if option is None:
            self._not_kept(name, prefix + key, value, at)
            return {}
        if option in _FLAGS:
            if not isinstance(value, bool):
                self._refuse(f"config {name}: {prefix}{key} must be true or false, not {value!r}", at)
            return {option: "true"} if value else {}
        return {option: _text(value)} if _is_plain(value, option) else self._bad(name, prefix + key, value, at)

    def _file(self, name: str, key: str, option: str, value: object, at: Position) -> dict[str, str]:
        path = f"/models/{value}"
        if not isinstance(value, str) or path not in self.paths:
            have = ", ".join(sorted(path.removeprefix("/models/") for path in self.paths)) or "none"
            self._refuse(f"config {name}: {key} names {value!r}, which is no model file here (there are: {have})", at)
        return {option: path}

    def _not_kept(self, name: str, key: str, value: object, at: Position) -> None:
        if key == "template" and value == {"use_tokenizer_template": True}:
            return
        why = {
            "template": "llama-server uses the chat template inside the GGUF",
            "roles": "llama-server uses the chat template inside the GGUF",
            "system_prompt": "send it as a message of the role system",
            "stopwords": "send `stop` with each request",
        }.get(key, "llama-server has no counterpart")
        self.warnings.append(
            Diagnostic(Severity.WARNING, "setting-not-kept", f"config {name}: {key} is left out: {why}", at)
        )

    def _check_name(self, model: _Model, at: Position, count: int) -> None:
        """A preset is a line of an INI file: what that cannot carry is refused."""
        if count > 1:
            for text in (model.name, *model.options.values()):
                if re.search(r"[\x00-\x1f\x7f]", text):
                    self._refuse(f"config {model.name!r}: line breaks fit in no preset of several models", at)
            if not re.fullmatch(r"[^\s\[\];#*][^\[\];#*]*", model.name):
                self._refuse(f"config name {model.name!r} cannot name a preset: use letters, digits, `.`, `_`, `-`", at)

    def _bad(self, name: str, key: str, value: object, at: Position) -> dict[str, str]:
        self._refuse(f"config {name}: {key} must be a number or a string, not {value!r}", at)
        return {}

    def _refuse(self, message: str, at: Position) -> None:
        self.errors.append(Diagnostic(Severity.ERROR, "config", message, at))


def _is_plain(value: object, option: str) -> bool:
    return isinstance(value, dict) if option == "chat-template-kwargs" else isinstance(value, (str, int, float))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
