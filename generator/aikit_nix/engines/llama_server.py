"""LocalAI's model configs translated to llama-server's settings.

llama-server's options: `llama-server --help` of llama.cpp b9842 (nixpkgs) and b11669 (Debian); only options that both
have are used. Of an option that is given twice the last counts, so a user's arguments (`docker run IMAGE --port 18080`)
win over the image's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.localai_config import KINDS, MOST_CHARACTERS, Entry, Kind, Value
from aikit_nix.aikitfile.reader import short
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.base.redact import printable
from aikit_nix.engines import Launch
from aikit_nix.engines.chat_template import Prompt, reaches_the_model, translate
from aikit_nix.engines.gojinja import UntranslatableError
from aikit_nix.sources.gguf import Facts

PRESETS_PATH = "/models.ini"
# The chat template for a model that has none: the texts of the messages, for the model to go on with.
BASE = Prompt(chat="{{.Input}}\n")

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
_DEFAULTS = {"mmap": True, "f16": True}
# What is read in other ways than by the tables above.
_READ = {"name", "backend", "roles", "stopwords", "system_prompt", "parameters.model"}
_FLAGS = frozenset({"embeddings", "ignore-eos", "jinja", "no-kv-offload", "reranking"})
_BACKENDS = frozenset({"", "llama", "llama-cpp", "llama-cpp-fallback", "llama-stable"})

# Shard 2 and later of a split GGUF: llama.cpp finds them from the first.
_LATER_SHARD = re.compile(r".*-(?!00001-of)\d{5}-of-\d{5}\.gguf")


@dataclass(frozen=True)
class _Model:
    """One served model: its name in the API, its options in llama-server's words, and where it stands."""

    name: str
    options: tuple[tuple[str, str], ...]
    at: Position


def launch(aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> Launch:
    """llama-server's arguments. Raises AikitError where the aikitfile's config cannot be served."""
    translation = _Translation(aikitfile, headers)
    models = translation.models()
    translation.check(models)
    if translation.errors:
        raise AikitError(*translation.errors)
    args = [*_BASE_ARGS, *(["--verbose"] if aikitfile.debug else [])]
    files = dict(translation.templates)
    if len(models) == 1:
        args += ["--alias", models[0].name]
        for option, value in models[0].options:
            args += [f"--{option}"] if option in _FLAGS else [f"--{option}", value]
    else:
        # Router mode: one process a model, started when it is first asked for.
        args += ["--models-preset", PRESETS_PATH]
        loaded = {name.value for name in aikitfile.load_to_memory}
        files[PRESETS_PATH] = "\n".join(_section(model, load=model.name in loaded) for model in models)
    return Launch(tuple(args), files=files, warnings=tuple(translation.warnings))


def _section(model: _Model, *, load: bool) -> str:
    lines = [f"{option} = {value}\n" for option, value in model.options]
    lines += ["load-on-startup = true\n"] if load else []
    return f"[{model.name}]\n" + "".join(lines)


class _Translation:
    """Collects errors, warnings and chat templates on the way."""

    def __init__(self, aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> None:
        self.aikitfile = aikitfile
        self.headers = headers
        self.paths = {model.path for model in aikitfile.models}
        self.texts = {
            template.name.value: template.template.value
            for model in aikitfile.models
            for template in model.prompt_templates
        }
        # Files, and the folders that they need
        files = self.paths | {f"/models/{name}.tmpl" for name in self.texts}
        self.taken = files | {str(folder) for file in files for folder in PurePosixPath(file).parents}
        self.numbers: Counter[str] = Counter()
        self.several = False
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.templates: dict[str, str] = {}

    def models(self) -> list[_Model]:
        """The models of the config, or without one every model file under its aikitfile name."""
        config = localai_config.read(self.aikitfile)
        if config is None:
            models = [model for model in self.aikitfile.models if not _LATER_SHARD.fullmatch(model.path)]
            self.several = len(models) != 1
            return [
                _Model(
                    model.name.value,
                    (("model", model.path), *self.chat_template(model.name.value, model.path, None, model.name.at)),
                    model.name.at,
                )
                for model in models
            ]
        entries = config.require()
        self.several = len(entries) != 1
        return [model for entry in entries for model in self.entry(entry)]

    def entry(self, entry: Entry) -> Iterator[_Model]:
        if not entry.name:
            return self.refuse("each config needs a `name`", entry.at)
        if entry.words("backend") not in _BACKENDS:
            backend = entry.values["backend"]
            return self.refuse(
                f"config {entry.name}: llama-server has no backend `{short(backend.text())}`: use `--engine localai`",
                backend.at,
            )
        path = f"/models/{entry.words('parameters.model')}"
        options = list(self.file(entry, "parameters.model", "model"))
        for key, value in entry.values.items():
            try:
                options += self.setting(entry, key, value)
            except AikitError as wrong:
                self.errors += wrong.diagnostics
        header = self.headers.get(path)
        if ("embeddings", "true") in options:
            # Without pooling llama-server refuses /v1/embeddings. A GGUF of an embedding model says which one.
            options += [("pooling", "mean")] if header and header.pooling is None else []
        else:
            options += self.chat_template(entry.name, path, entry, entry.at)
        yield _Model(entry.name, tuple(options), entry.at)

    def setting(self, entry: Entry, key: str, value: Value) -> list[tuple[str, str]]:
        """The options for one setting. Raises AikitError where it is none that llama-server takes."""
        if KINDS.get(key) is Kind.TEXT and not value.text():
            return []  # to LocalAI, an empty text is none
        if key in FILES:
            return self.file(entry, key, FILES[key])
        if key == "stopwords":
            return self.stopwords(entry, value)
        if key in _READ or key.startswith("template."):
            return []
        if key in _DEFAULTS and value.boolean() is _DEFAULTS[key]:
            return []
        option = PARAMETERS.get(key.removeprefix("parameters.")) if key.startswith("parameters.") else SETTINGS.get(key)
        if option is None:
            self.not_kept(entry, key, "llama-server has no counterpart", value.at)
            return []
        if option in _FLAGS:
            return [(option, "true")] if value.boolean() else []
        return [(option, _text(value))]

    def file(self, entry: Entry, key: str, option: str) -> list[tuple[str, str]]:
        value = entry.values.get(key)
        name = value.text() if value else None
        if f"/models/{name}" not in self.paths:
            have = ", ".join(sorted(path.removeprefix("/models/") for path in self.paths)) or "none"
            said = f"`{short(name)}`, which is no model file here" if name else "no model file"
            self.refuse(f"config {entry.name}: {key} names {said} (there are: {have})", value.at if value else entry.at)
        elif option == "lora" and "," in str(name):
            self.refuse(f"config {entry.name}: {key} has a comma, which llama-server takes for two files", entry.at)
        return [(option, f"/models/{name}")]

    def stopwords(self, entry: Entry, value: Value) -> list[tuple[str, str]]:
        words = [word for word in value.texts() if word]
        if self.several and (len(words) > 1 or not all(map(_fits_preset, words))):
            kept = [word for word in words if _fits_preset(word)][:1]
            why = f"a preset of several models holds {'one' if kept else 'none of them'}: send `stop` with each request"
            self.not_kept(entry, "stopwords", why, value.at)
            words = kept
        return [("reverse-prompt", word) for word in words]

    def chat_template(self, name: str, path: str, entry: Entry | None, at: Position) -> list[tuple[str, str]]:
        """The options for the chat template: none where the one inside the GGUF is used."""
        values = entry.values if entry else {}
        own = values.get("template.use_tokenizer_template")
        go = {key: self.template(values.get(f"template.{key}")) for key in ("chat", "chat_message", "function")}
        # LocalAI takes FILE.tmpl for the prompts of the model FILE
        go["chat"] = go["chat"] if go["chat"] is not None else self.texts.get(path.removeprefix("/models/"))
        prompt_at = next((values[f"template.{key}"].at for key in go if f"template.{key}" in values), at)
        if (own and own.boolean()) or not any(text is not None for text in go.values()):
            header = self.headers.get(path)
            self.unused_prompt(entry, values)
            return self.write_template(name, BASE) if header and not header.chat_template else []
        if entry and "system_prompt" in values and not any("SystemPrompt" in (text or "") for text in go.values()):
            self.not_kept(entry, "system_prompt", "no template has {{.SystemPrompt}}", values["system_prompt"].at)
        try:
            return self.write_template(name, self.prompt(values, go))
        except UntranslatableError as lost:
            self.warnings.append(
                Diagnostic(
                    Severity.WARNING,
                    "template-not-kept",
                    printable(
                        f"config {name}: the chat template inside the GGUF is used, not the prompt templates, because of"
                        f" {str(lost)[:200]}"
                    ),
                    prompt_at,
                )
            )
            return []

    def template(self, value: Value | None) -> str | None:
        """What a value of the config names, or is."""
        if value is None or not value.text():
            return None
        return self.texts.get(value.text(), value.text())

    def prompt(self, values: Mapping[str, Value], go: Mapping[str, str | None]) -> Prompt:
        for text in go.values():
            if text is not None and re.fullmatch(r"\S+", text) and "{{" not in text:
                raise UntranslatableError(f"the template `{text}`, which is not there")
        join = values.get("template.join_chat_messages_by_character")
        system = values.get("system_prompt")
        roles = values.get("roles")
        return Prompt(
            chat=go["chat"],
            chat_message=go["chat_message"],
            function=go["function"],
            roles=roles.text_map() if roles else {},
            system_prompt=system.text() if system else "",
            join=join.text() if join else "\n",
            grammar="grammar" in values,
        )

    def unused_prompt(self, entry: Entry | None, values: Mapping[str, Value]) -> None:
        for key in ("roles", "system_prompt"):
            if entry and key in values:
                self.not_kept(entry, key, "the chat template inside the GGUF is used", values[key].at)

    def write_template(self, name: str, prompt: Prompt) -> list[tuple[str, str]]:
        """A file of the image with the chat template, and the options that name it."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "chat"
        path = f"/models/{stem}.jinja"
        while path in self.taken:
            self.numbers[stem] += 1
            path = f"/models/{stem}-{self.numbers[stem] + 1}.jinja"
        template = translate(prompt)
        if not reaches_the_model(template):
            raise UntranslatableError("a template that prints nothing of what the user says")
        self.templates[path] = template
        self.taken.add(path)
        return [("jinja", "true"), ("chat-template-file", path)]

    def check(self, models: list[_Model]) -> None:
        """What the names and values must be for llama-server to read them."""
        seen: set[str] = set()
        for model in models:
            if model.name in seen:
                self.refuse(f"config {model.name}: there is a model of that name already: rename one", model.at)
            seen.add(model.name)
            if not self.several:
                if "," in model.name:
                    self.refuse(f"config {model.name}: llama-server takes a comma for two names: rename it", model.at)
                continue
            # A preset is lines of an INI file, where `;` and `#` begin comments; what stands behind `:` is a tag
            # that is written in capitals there.
            if not re.fullmatch(r"[^\s\[\];#*:\x00-\x1f\x7f]([^\[\];#*:\x00-\x1f\x7f]*\S)?", model.name):
                self.refuse(
                    f"config {model.name}: of several models this cannot be the name of one: use letters, digits, `.`, `_`, `-`",
                    model.at,
                )
            for option, text in model.options:
                if not _fits_preset(text):
                    self.refuse(
                        f"config {model.name}: the {option} `{short(text)}` cannot be a setting of one of several models:"
                        " no `;`, no `#`, no line break, no blank around it",
                        model.at,
                    )

    def not_kept(self, entry: Entry, key: str, why: str, at: Position) -> None:
        text = printable(f"config {entry.name}: {key} is left out: {why}")
        self.warnings.append(Diagnostic(Severity.WARNING, "setting-not-kept", text, at))

    def refuse(self, message: str, at: Position) -> None:
        self.errors.append(Diagnostic(Severity.ERROR, "config", printable(message), at))


def _fits_preset(text: str) -> bool:
    return bool(text) and text == text.strip() and not re.search(r"[;#\x00-\x1f\x7f]", text)


def _text(value: Value) -> str:
    """The value as an argument. llama-server's numbers have 32 bits."""
    match KINDS[value.key]:
        case Kind.INTEGER:
            number = value.integer()
            if not -(2**31) <= number < (2**32 if value.key == "parameters.seed" else 2**31):
                raise value.error(f"is too large: {number}")
            return str(number)
        case Kind.NUMBER:
            return str(value.number())
        case Kind.MAP:
            return value.json()
        case _:
            text = value.text()
            if len(text) > MOST_CHARACTERS:
                raise value.error(f"is more than {MOST_CHARACTERS} characters: no program takes so long an argument")
            # `flash_attention: true` is how LocalAI's older versions had it
            return {"true": "on", "false": "off"}.get(text, text) if value.key == "flash_attention" else text
