"""LocalAI's model configs in llama-server's words, by the table in settings.py."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.localai_config import LLAMA_CPP, ConfigEntry, ConfigValue
from aikit_nix.aikitfile.reader import short
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.base.redact import printable
from aikit_nix.engines import companions
from aikit_nix.engines.llama_server import settings
from aikit_nix.engines.llama_server.chat_template import Prompt, reaches_the_model, translate
from aikit_nix.engines.llama_server.gojinja import UntranslatableError
from aikit_nix.engines.llama_server.settings import Becomes, Option
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.role import Role

# The chat template for a model that has none: the texts of the messages, for the model to go on with.
BASE = Prompt(chat="{{.Input}}\n")

_PROMPTS = ("chat", "chat_message", "function")
_REPEATED = ("reverse-prompt", "logit-bias")
# What a model gets without a config
_ALONE = {Role.PROJECTOR: "mmproj", Role.ADAPTER: "lora"}


@dataclass(frozen=True)
class ServedModel:
    """One served model: its name in the API, its options in llama-server's words, and where it stands."""

    name: str
    options: tuple[Option, ...]
    at: Position


def fits_preset(text: str) -> bool:
    """Whether a value can stand in a line of an INI file."""
    return bool(text) and text == text.strip() and not re.search(r"[;#\x00-\x1f\x7f]", text)


def _last(options: list[Option]) -> Iterator[Option]:
    """Of an option that stands twice the last, at the place of the first."""
    last = {name.removeprefix("no-"): (name, value) for name, value in options}
    for each in dict.fromkeys(options):
        if each[0] in _REPEATED:
            yield each
        elif found := last.pop(each[0].removeprefix("no-"), None):
            yield found


class Translation:
    """Collects errors, warnings, chat templates and further names on the way."""

    def __init__(self, aikitfile: Aikitfile, headers: Mapping[str, Facts], *, drop: bool = False) -> None:
        self.aikitfile = aikitfile
        self.headers = headers
        self.drop = drop
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
        self.aliases: list[str] = []

    def models(self) -> list[ServedModel]:
        """The models of the config, or without one every model file under its aikitfile name."""
        config = localai_config.read(self.aikitfile)
        if config is None:
            return self.files()
        self.errors += companions.misnamed(config.require(), self.headers)
        self.warnings += companions.unnamed(self.aikitfile, config.require(), self.headers, models=True)
        entries = [entry for entry in config.require() if not entry.is_on("disabled")]
        served = [entry for entry in entries if not entry.words("alias")]
        self.several = len(served) != 1
        for entry in entries:
            if entry not in served:
                self.alias(entry, served)
        return [model for entry in served for model in self.entry(entry)]

    def files(self) -> list[ServedModel]:
        """Every model file under its aikitfile name; what belongs to a model goes with it where there is one."""
        files = companions.sort(self.aikitfile, self.headers)
        self.several = len(files.served) != 1
        more: list[Option] = []
        if len(files.companions) == 1 and not self.several and files.companions[0][1] in _ALONE:
            ((companion, role),) = files.companions
            more = [(_ALONE[role], companion.path)]
        else:
            self.errors += companions.unserved(self.aikitfile, self.headers)
        found = []
        for model in files.served:
            name, at = model.name.value, model.name.at
            options = (("model", model.path), *more, *self.chat_template(name, model.path, None, at))
            found.append(ServedModel(name, options, at))
        return found

    def alias(self, entry: ConfigEntry, served: list[ConfigEntry]) -> None:
        """Another name of a model."""
        value = entry.values["alias"]
        if value.text() not in [other.name for other in served]:
            self.refuse(f"config {entry.name}: no model is called `{short(value.text())}`", value.at)
        elif self.several or "," in entry.name:
            self.lost(entry, "alias", "of several models none has two names in llama-server", value.at)
        else:
            self.aliases.append(entry.name)

    def entry(self, entry: ConfigEntry) -> Iterator[ServedModel]:
        if not entry.name:
            return self.refuse("each config needs a `name`", entry.at)
        if entry.words("backend") not in LLAMA_CPP:
            backend = entry.values["backend"]
            return self.refuse(
                f"config {entry.name}: llama-server has no backend `{short(backend.text())}`: use `--engine localai`",
                backend.at,
            )
        path = self.file(entry, "parameters.model", entry.values.get("parameters.model"))
        options: list[Option] = [("model", path)]
        # LocalAI looks at `options` last, and at those that are llama-server's own behind the others
        for key, value in sorted(entry.values.items(), key=lambda each: each[0] == "options"):
            try:
                options += self.setting(entry, key, value) if key != "parameters.model" else []
            except AikitError as wrong:
                self.errors += wrong.diagnostics
        options += self.kwargs(entry)
        context = int(dict(options).get("ctx-size") or settings.DEFAULT_CONTEXT)
        options += self.slots(entry, options, context)
        header = self.headers.get(path)
        if ("embeddings", None) in options or ("reranking", None) in options:
            options += self.single_pass(entry, header, context)
        if ("embeddings", None) in options:
            # Without pooling llama-server refuses /v1/embeddings. A GGUF of an embedding model says which one.
            if header and header.pooling is None and "pooling" not in dict(options):
                options.append(("pooling", "mean"))
        else:
            options += self.chat_template(entry.name, path, entry, entry.at)
        yield ServedModel(entry.name, tuple(_last(options)), entry.at)

    def setting(self, entry: ConfigEntry, key: str, value: ConfigValue) -> list[Option]:
        """The options for one setting. Raises AikitError where it is none that llama-server takes."""
        if settings.is_unset(value):
            return []
        match key:
            case "stopwords":
                return self.stopwords(entry, value)
            case "context_size" if value.integer() < 0:
                header = self.headers.get(f"/models/{entry.words('parameters.model')}")
                if not (header and header.context_length):
                    raise value.error(
                        "is the model's own, which is not known here: write a number, or `aikit-nix lock`"
                    )
                return [("ctx-size", str(header.context_length))]
            case "lora_adapter":
                return self.loras(entry, (value,), "lora_scale")
            case "lora_adapters":
                return self.loras(entry, value.items(), "lora_scales")
            case "options":
                return self.backend_options(entry, value)
            case "parameters.pooling" if value.text() not in ("backend", "mean", "last"):
                self.lost(entry, key, f"llama-server has no pooling `{short(value.text())}`", value.at)
                return []
            case "template.completion":
                if not re.fullmatch(r"\s*\{\{-?\s*\.Input\s*-?\}\}\s*", self.template(value) or ""):
                    self.lost(entry, key, "`/v1/completions` takes the prompt as it is", value.at)
                return []
        setting = settings.find(key)
        if setting is None or (setting.option and key not in settings.SETTINGS):  # `temperature.x` is no temperature
            self.not_kept(entry, key, "LocalAI does not know it either", value.at)
        elif setting.becomes is Becomes.WARNING and not settings.is_done_anyway(value):
            self.not_kept(entry, key, "llama-server has no counterpart", value.at)
        elif setting.becomes is Becomes.LOCALAI and not settings.is_done_anyway(value):
            self.lost(entry, key, setting.note or "llama-server has no counterpart", value.at)
        elif setting.becomes is Becomes.FILE:
            return [(setting.option, self.file(entry, key, value))]
        else:
            return settings.options(setting, value)
        return []

    def backend_options(self, entry: ConfigEntry, value: ConfigValue) -> list[Option]:
        """LocalAI's `options`: `NAME:VALUE`, `NAME`, and llama-server's own as `--NAME:VALUE`."""
        found: list[Option] = []
        own: list[Option] = []
        for item in value.items():
            name, colon, rest = item.text().partition(":")
            if name.startswith("-"):
                own.append(settings.own(item))
                continue
            # As grpc-server.cpp reads them: up to the next colon
            text = rest.partition(":")[0] if colon else "true"
            key = f"options.{name}"
            if settings.find(key) is None:
                self.not_kept(entry, key, "LocalAI's llama-cpp does not know it either", item.at)
            else:
                found += self.setting(entry, key, replace(item.plain(text), key=key))
        return found + own

    def file(self, entry: ConfigEntry, key: str, value: ConfigValue | None) -> str:
        """The path in the image of the model file that a value names."""
        name = value.text() if value else None
        if f"/models/{name}" not in self.paths:
            have = ", ".join(sorted(path.removeprefix("/models/") for path in self.paths)) or "none"
            said = f"`{short(name)}`, which is no model file here" if name else "no model file"
            self.refuse(f"config {entry.name}: {key} names {said} (there are: {have})", value.at if value else entry.at)
        return f"/models/{name}"

    def loras(self, entry: ConfigEntry, adapters: tuple[ConfigValue, ...], scales: str) -> list[Option]:
        """LocalAI takes no scale, and 0, for 1."""
        given = entry.values.get(scales)
        numbers = [] if given is None else [given.number()] if scales == "lora_scale" else given.numbers()
        found = []
        for number, adapter in enumerate(adapters):
            path = self.file(entry, adapter.key, adapter)
            if re.search("[,:]", path):
                self.refuse(
                    f"config {entry.name}: {adapter.key} has a `,` or `:`, which divides files and scales", adapter.at
                )
            found.append(f"{path}:{(numbers[number] if number < len(numbers) else 0) or 1}")
        return [("lora-scaled", ",".join(found))]

    def kwargs(self, entry: ConfigEntry) -> list[Option]:
        """LocalAI's ResolveChatTemplateKwargs: the config's map, and over it what turns thinking on and off."""
        map_, effort = entry.values.get("chat_template_kwargs"), entry.words("reasoning_effort")
        off = entry.is_on("reasoning.disable")
        kwargs = json.loads(map_.json()) if map_ else {}
        if "reasoning.disable" in entry.values:
            kwargs["enable_thinking"] = not off
        if effort:
            kwargs["reasoning_effort"] = effort
            if effort.lower() in ("none", "minimal", "low", "medium", "high"):
                kwargs["enable_thinking"] = effort.lower() != "none" and not off
        return [("chat-template-kwargs", json.dumps(kwargs, ensure_ascii=False))] if kwargs else []

    def slots(self, entry: ConfigEntry, options: list[Option], context: int) -> list[Option]:
        """`context_size` is what each of several requests at once may have; llama-server divides its own among them."""
        slots = int(dict(options).get("parallel") or 1)
        value = entry.values.get("options")
        if value and not 1 <= slots <= settings.MOST_SLOTS:
            self.refuse(f"config {entry.name}: {slots} is no number of slots: 1 to {settings.MOST_SLOTS}", value.at)
        as_it_is = value and any(re.match("--ctx[-_]size:", item.node.text) for item in value.items())
        return [("ctx-size", str(slots * context))] if slots > 1 and not as_it_is else []

    def single_pass(self, entry: ConfigEntry, header: Facts | None, context: int) -> list[Option]:
        """As LocalAI: the whole context in one batch, since an embedding or a rank is made of all of it at once."""
        context = min(context, header.context_length or context) if header else context
        if entry.values.get("parameters.batch") or context <= settings.DEFAULT_BATCH:
            return []
        return [("batch-size", str(context)), ("ubatch-size", str(context))]

    def stopwords(self, entry: ConfigEntry, value: ConfigValue) -> list[Option]:
        words = [word for word in value.texts() if word]
        if self.several and (len(words) > 1 or not all(map(fits_preset, words))):
            kept = [word for word in words if fits_preset(word)][:1]
            why = f"a preset of several models holds {'one' if kept else 'none of them'}: send `stop` with each request"
            self.lost(entry, "stopwords", why, value.at)
            words = kept
        return [("reverse-prompt", word) for word in words]

    def chat_template(self, name: str, path: str, entry: ConfigEntry | None, at: Position) -> list[Option]:
        """The options for the chat template: none where the one inside the GGUF is used."""
        values = entry.values if entry else {}
        go = {key: self.template(values.get(f"template.{key}")) for key in _PROMPTS}
        # LocalAI takes FILE.tmpl for the prompts of the model FILE
        go["chat"] = go["chat"] if go["chat"] is not None else self.texts.get(path.removeprefix("/models/"))
        if (entry and entry.is_on("template.use_tokenizer_template")) or not any(
            text is not None for text in go.values()
        ):
            header = self.headers.get(path)
            if header and not header.chat_template:
                roles = values.get("roles")
                return self.write_template(name, replace(BASE, roles=roles.text_map() if roles else {}))
            for key in ("roles", "system_prompt"):
                if entry and key in values:
                    self.not_kept(entry, key, "the chat template inside the GGUF is used", values[key].at)
            return []
        if entry and "system_prompt" in values and not any("SystemPrompt" in (text or "") for text in go.values()):
            self.not_kept(entry, "system_prompt", "no template has {{.SystemPrompt}}", values["system_prompt"].at)
        try:
            return self.write_template(name, self.prompt(values, go))
        except UntranslatableError as broken:
            prompt_at = next((values[f"template.{key}"].at for key in go if f"template.{key}" in values), at)
            why = f"the one inside the GGUF would be used, because of {str(broken)[:200]}"
            self.say_lost(f"config {name}: the chat template", why, prompt_at)
            return []

    def template(self, value: ConfigValue | None) -> str | None:
        """What a value of the config names, or is."""
        if value is None or not value.text():
            return None
        return self.texts.get(value.text(), value.text())

    def prompt(self, values: Mapping[str, ConfigValue], go: Mapping[str, str | None]) -> Prompt:
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

    def write_template(self, name: str, prompt: Prompt) -> list[Option]:
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
        return [("jinja", None), ("chat-template-file", path)]

    def lost(self, entry: ConfigEntry, key: str, why: str, at: Position) -> None:
        """What changes the answers and only LocalAI does."""
        self.say_lost(f"config {entry.name}: {key}", why, at)

    def say_lost(self, what: str, why: str, at: Position) -> None:
        if self.drop:
            self.warn(f"{what} is left out: {why}", at)
        else:
            text = f"{what} would be lost: {why}. Use `--engine localai`, or leave it out with `--drop-settings`"
            self.errors.append(Diagnostic(Severity.ERROR, "setting-lost", printable(text), at))

    def not_kept(self, entry: ConfigEntry, key: str, why: str, at: Position) -> None:
        self.warn(f"config {entry.name}: {key} is left out: {why}", at)

    def warn(self, message: str, at: Position) -> None:
        self.warnings.append(Diagnostic(Severity.WARNING, "setting-not-kept", printable(message), at))

    def refuse(self, message: str, at: Position) -> None:
        self.errors.append(Diagnostic(Severity.ERROR, "config", printable(message), at))
