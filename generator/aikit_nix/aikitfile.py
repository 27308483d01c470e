"""The aikitfile: text → frozen dataclasses that remember where each value stood.

Faithful to AIKit (yaml.v2, not strict): unknown keys are ignored, of double keys the last counts, scalars of any type are
taken as text, null is absent. What AIKit ignored in silence is a warning here; what it built wrong is an error.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from aikit_nix import compat, schema, source, yamltree
from aikit_nix.compat import Escapes, Reading
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity, error
from aikit_nix.yamltree import Node

T = TypeVar("T")
_LARGEST_BYTES = 32_000_000
_MAX_ERRORS = 100
_MAX_VALUES = 1_000_000


class Runtime(StrEnum):
    """The instruction set or accelerator that the engine is compiled for."""

    AVX = "avx"
    AVX2 = "avx2"
    AVX512 = "avx512"
    CUDA = "cuda"


class Backend(StrEnum):
    """An inference backend besides llama-cpp, which is always there."""

    STABLEDIFFUSION = "stablediffusion"
    EXLLAMA = "exllama"
    EXLLAMA2 = "exllama2"


@dataclass(frozen=True)
class Located(Generic[T]):
    """A value and where it stood."""

    value: T
    at: Position


@dataclass(frozen=True)
class PromptTemplate:
    """A file `/models/<name>.tmpl`; the text is final."""

    name: Located[str]
    template: Located[str]

    @property
    def path(self) -> str:
        """Where the template lies in the image."""
        return f"{source.MODELS}/{self.name.value}.tmpl"


@dataclass(frozen=True)
class Model:
    """A model's file. `source` is an http(s) URL or a path relative to the aikitfile; `sha256` is 64 lower-case hex digits."""

    at: Position
    name: Located[str]
    source: Located[str]
    sha256: Located[str] | None
    prompt_templates: tuple[PromptTemplate, ...]
    file: str

    @property
    def url(self) -> str | None:
        """The URL; None for a local file."""
        return self.source.value if self.source.value.startswith(("http://", "https://")) else None

    @property
    def path(self) -> str:
        """Where the model lies in the image."""
        return source.destination(self.file, self.name.value, url=self.url is not None)


@dataclass(frozen=True)
class Aikitfile:
    """A valid aikitfile. `digest` is the sha256 (hex) of its bytes; `config` is the final text of /config.yaml."""

    file: str
    digest: str
    debug: bool
    runtime: Located[Runtime] | None
    backends: tuple[Located[Backend], ...]
    models: tuple[Model, ...]
    config: Located[str] | None
    load_to_memory: tuple[Located[str], ...] = ()


def read(path: Path, escapes: Escapes = Escapes.AUTO) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """Read and parse an aikitfile. Raises AikitError as `parse` does, and when the file cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as exception:
        raise error(f"{path} cannot be read ({exception.strerror}): name an aikitfile") from None
    if len(data) > _LARGEST_BYTES:
        raise error(f"{path} is larger than {_LARGEST_BYTES // 1_000_000} MB: this is no aikitfile")
    return parse(data, str(path), escapes)


def parse(data: bytes, file: str, escapes: Escapes = Escapes.AUTO) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """The aikitfile in `data`, and warnings and notes by position. `file` is its name in messages.

    Raises AikitError with every error of the file and with the warnings up to there. Reads nothing but `data`.
    """
    text = yamltree.decode(data, file)
    root, found = yamltree.compose(text, file)
    parser = _Parser(file, escapes, found)
    result = parser.aikitfile(root, hashlib.sha256(data).hexdigest())
    found.sort(key=lambda d: (d.at or Position(file, 1, 1), d.severity.value, d.message))
    errors = [d for d in found if d.severity is Severity.ERROR]
    if errors:
        if len(errors) > _MAX_ERRORS:
            more = Diagnostic(Severity.NOTE, "more-errors", f"and {len(errors) - _MAX_ERRORS} more errors", errors[_MAX_ERRORS].at)
            found = [*errors[:_MAX_ERRORS], more]
        raise AikitError(*found)
    return result, tuple(found)


class _Parser:
    """Walks the tree once and collects what it finds wrong instead of stopping at it."""

    def __init__(self, file: str, escapes: Escapes, found: list[Diagnostic]) -> None:
        self._file = file
        self._escapes = escapes
        self._found = found
        self._values = 0
        self._flat: dict[int, dict[str, tuple[Node, Node]]] = {}
        self._resolved: dict[int, str] = {}
        self._readings: dict[Reading, list[str]] = {}

    def _say(self, severity: Severity, code: str, message: str, at: Position) -> None:
        self._found.append(Diagnostic(severity, code, message, at))

    def _error(self, code: str, message: str, at: Position) -> None:
        self._say(Severity.ERROR, code, message, at)

    def _warn(self, code: str, message: str, at: Position) -> None:
        self._say(Severity.WARNING, code, message, at)

    def _spend(self, values: int, at: Position) -> None:
        """Aliases can make a small file stand for a huge one."""
        self._values += values
        if self._values > _MAX_VALUES:
            raise AikitError(
                Diagnostic(Severity.ERROR, "too-large", f"the file stands for more than {_MAX_VALUES} values: use fewer aliases", at)
            )

    def aikitfile(self, root: Node | None, digest: str) -> Aikitfile:
        start = root.at if root else Position(self._file, 1, 1)
        if root is None or root.is_null:
            self._error("no-api-version", "the file is empty: begin with `apiVersion: v1alpha1`", start)
            return Aikitfile(self._file, digest, False, None, (), (), None)
        if root.kind != "mapping":
            self._error("wrong-type", f"an aikitfile is a mapping that begins with `apiVersion: v1alpha1`, not {_a(root)}", start)
            return Aikitfile(self._file, digest, False, None, (), (), None)
        fields = self._fields(root, schema.TOP, "an aikitfile")
        if "baseModel" in fields or "datasets" in fields:
            key = fields.get("baseModel", fields.get("datasets"))
            self._error(
                "fine-tuning",
                "this aikitfile fine-tunes a model; aikit-nix builds images for inference: fine-tune with AIKit, then list the result",
                key[0].at if key else start,
            )
            return Aikitfile(self._file, digest, False, None, (), (), None)
        self._api_version(fields, start)
        debug = self._bool(fields.get("debug"), "debug")
        runtime = self._runtime(fields.get("runtime"))
        backends = self._backends(fields.get("backends"))
        models = self._models(fields.get("models"), start, has_backends=bool(backends) or "backends" in fields)
        config = self._config(fields.get("config"))
        load = self._load_to_memory(fields.get("loadToMemory"))
        self._collisions(models)
        self._say_readings(start)
        return Aikitfile(self._file, digest, debug, runtime, backends, models, config, load)

    # Mappings, lists and scalars

    def _fields(self, node: Node, known: dict[str, str], what: str) -> dict[str, tuple[Node, Node]]:
        """The keys of a mapping with their values; of double keys the last, warnings for unknown ones."""
        fields = self._flatten(node)
        for name, (key, _) in fields.items():
            if name not in known:
                self._warn("unknown-key", f"`{_short(name)}` is not a key of {what}: ignored, as by AIKit{schema.guess(name, known)}", key.at)
        return fields

    def _flatten(self, node: Node) -> dict[str, tuple[Node, Node]]:
        if id(node) in self._flat:
            return self._flat[id(node)]
        self._flat[id(node)] = own = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key, value in node.pairs:
            if key.kind != "scalar":
                self._error("wrong-type", f"a key must be a word, not {_a(key)}", key.at)
            elif key.style is None and key.text == "<<":
                parts = value.items if value.kind == "sequence" else [value]
                for part in {id(part): part for part in parts}.values():
                    if part.kind != "mapping":
                        self._error("wrong-type", f"`<<` merges mappings, not {_a(part)}", part.at)
                        continue
                    flat = self._flatten(part)
                    self._spend(len(flat), key.at)
                    for name, pair in flat.items():
                        merged.setdefault(name, pair)
            else:
                if key.text in own:
                    first = own[key.text][0].at
                    self._warn(
                        "duplicate-key", f"`{_short(key.text)}` stands on line {first.line} already: the last one counts", key.at
                    )
                own[key.text] = (key, value)
        for name, pair in merged.items():
            own.setdefault(name, pair)
        return own

    def _text(self, pair: tuple[Node, Node] | None, what: str) -> Located[str] | None:
        """A scalar of any type as it was written; None for an absent key or null."""
        if pair is None or pair[1].is_null:
            return None
        node = pair[1]
        if node.kind != "scalar":
            hint = f": write `{pair[0].text}: |` and indent the text below it" if pair[0].text in ("config", "template") else ""
            self._error("wrong-type", f"{what} must be a text, not {_a(node)}{hint}", node.at)
            return None
        if "\0" in node.text:
            self._error("nul", f"{what} holds the character U+0000, which no file name and no Nix string can hold: remove it", node.at)
            return None
        return Located(node.text, node.at)

    def _list(self, pair: tuple[Node, Node] | None, what: str, item: str) -> list[Node]:
        if pair is None or pair[1].is_null:
            return []
        node = pair[1]
        if node.kind != "sequence":
            self._error("wrong-type", f"{what} must be a list, not {_a(node)}: write each on a line of its own, as `- {item}`", node.at)
            return []
        self._spend(len(node.items), node.at)
        return node.items

    def _bool(self, pair: tuple[Node, Node] | None, what: str) -> bool:
        if pair is None or pair[1].is_null:
            return False
        node = pair[1]
        if node.kind == "scalar" and node.style is None:
            if re.fullmatch(r"true|True|TRUE|yes|Yes|YES|on|On|ON|y|Y", node.text):
                return True
            if re.fullmatch(r"false|False|FALSE|no|No|NO|off|Off|OFF|n|N", node.text):
                return False
        shown = f"`{_short(node.text)}`" if node.kind == "scalar" else _a(node)
        self._error("wrong-type", f"{what} must be true or false, without quotes, not {shown}", node.at)
        return False

    # The keys

    def _api_version(self, fields: dict[str, tuple[Node, Node]], start: Position) -> None:
        had = len(self._found)
        version = self._text(fields.get("apiVersion"), "apiVersion")
        if version is None:
            if len(self._found) == had:
                self._error("no-api-version", "apiVersion is missing: begin the file with `apiVersion: v1alpha1`", start)
        elif version.value != "v1alpha1":
            self._error("api-version", f"apiVersion `{_short(version.value)}` is not known: write `v1alpha1`", version.at)

    def _runtime(self, pair: tuple[Node, Node] | None) -> Located[Runtime] | None:
        text = self._text(pair, "runtime")
        if text is None or text.value == "":
            return None
        if text.value in schema.REFUSED_RUNTIMES:
            self._error("runtime", f"runtime `{text.value}` {schema.REFUSED_RUNTIMES[text.value]}", text.at)
            return None
        if text.value not in set(Runtime):
            known = ", ".join(Runtime)
            self._error("runtime", f"runtime `{_short(text.value)}` is not one of {known}{schema.guess(text.value, Runtime)}", text.at)
            return None
        return Located(Runtime(text.value), text.at)

    def _backends(self, pair: tuple[Node, Node] | None) -> tuple[Located[Backend], ...]:
        backends: dict[Backend, Located[Backend]] = {}
        for node in self._list(pair, "backends", "stablediffusion"):
            text = self._text((node, node), "a backend")
            if text is None:
                continue
            if text.value in schema.REFUSED_BACKENDS:
                self._error("backend", f"backend `{text.value}` {schema.REFUSED_BACKENDS[text.value]}", text.at)
            elif text.value in set(Backend):
                backend = Backend(text.value)
                if backend in backends:
                    self._warn("duplicate-backend", f"backend `{backend}` is listed twice", text.at)
                backends.setdefault(backend, Located(backend, text.at))
            elif text.value not in schema.IMPLIED_BACKENDS:
                known = ", ".join([*Backend, *schema.IMPLIED_BACKENDS])
                self._error("backend", f"backend `{_short(text.value)}` is not one of {known}{schema.guess(text.value, Backend)}", text.at)
        return tuple(backends.values())

    def _models(self, pair: tuple[Node, Node] | None, start: Position, *, has_backends: bool) -> tuple[Model, ...]:
        had = len(self._found)
        nodes = self._list(pair, "models", "name: …")
        if not nodes and len(self._found) == had:
            runner = " (AIKit's runner images, which download a model when they start, have no counterpart here)" if has_backends else ""
            self._error("no-models", f"no models: list at least one below `models:`{runner}", pair[0].at if pair else start)
        models = (self._model(node) for node in nodes)
        return tuple(model for model in models if model)

    def _model(self, node: Node) -> Model | None:
        if node.kind != "mapping":
            self._error("wrong-type", f"a model is a mapping with name and source, not {_a(node)}", node.at)
            return None
        fields = self._fields(node, schema.MODEL, "a model")
        name = self._name(fields.get("name"), "the model's name")
        if name is None and ("name" not in fields or fields["name"][1].is_null):
            self._error("no-name", "the model has no name: add `name:`", node.at)
        where = self._source(fields.get("source"), node.at)
        sha256 = self._sha256(fields.get("sha256"))
        if where and where[1].url and sha256 is None and self._absent(fields.get("sha256")):
            self._error(
                "no-sha256",
                "the URL has no sha256, so nothing says which file is meant: add `sha256:` (Hugging Face shows it on the file's page;"
                f" else `curl -L '{where[1].url}' | sha256sum`)",
                where[0].at,
            )
        if where and not where[1].text.startswith(("http:", "https:")) and sha256:
            self._say(Severity.NOTE, "sha256-checked", "AIKit did not check the sha256 of a local file; here it is checked", sha256.at)
        elif where and where[1].note and sha256:
            self._say(Severity.NOTE, "sha256-checked", "AIKit did not check the sha256 of a huggingface:// file; here it is checked", sha256.at)
        templates = self._templates(fields.get("promptTemplates"))
        if name is None or where is None:
            return None
        text, origin = where
        return Model(node.at, name, Located(origin.text, text.at), sha256, templates, origin.file)

    @staticmethod
    def _absent(pair: tuple[Node, Node] | None) -> bool:
        return pair is None or pair[1].is_null or (pair[1].kind == "scalar" and pair[1].text == "")

    def _name(self, pair: tuple[Node, Node] | None, what: str) -> Located[str] | None:
        name = self._text(pair, what)
        if name is None:
            return None
        if name.value == "":
            self._error("name", f"{what} is empty: give it one", name.at)
            return None
        problem = source.name_problem(name.value)
        if problem:
            self._error("name", f"{what} {problem}: choose another", name.at)
            return None
        return name

    def _source(self, pair: tuple[Node, Node] | None, at: Position) -> tuple[Located[str], source.Source] | None:
        had = len(self._found)
        text = self._text(pair, "the model's source")
        if text is None:
            if len(self._found) == had:
                self._error("no-source", "the model has no source: add `source:` with a URL or a file beside the aikitfile", at)
            return None
        try:
            found = source.read(text.value)
        except source.Refused as refused:
            self._error("source", f"the source `{_short(text.value)}` {refused}", text.at)
            return None
        if found.note:
            self._say(Severity.NOTE, "source", f"`{_short(text.value)}` {found.note}", text.at)
        return text, found

    def _sha256(self, pair: tuple[Node, Node] | None) -> Located[str] | None:
        text = self._text(pair, "sha256")
        if text is None or text.value == "":
            return None
        if re.fullmatch(r"[0-9a-f]{64}", text.value):
            return text
        bare = text.value.strip().removeprefix("sha256:").lower()
        if re.fullmatch(r"[0-9a-f]{64}", bare):
            hint = f"write `{bare}`"
        elif re.fullmatch(r"[0-9a-f]*", bare):
            hint = f"it has {len(bare)}"
        else:
            hint = "it is what `sha256sum` prints"
        self._error("sha256", f"sha256 must be 64 lower-case hex digits and nothing else: {hint}", text.at)
        return None

    def _templates(self, pair: tuple[Node, Node] | None) -> tuple[PromptTemplate, ...]:
        templates = []
        for node in self._list(pair, "promptTemplates", "name: …"):
            if node.kind != "mapping":
                self._error("wrong-type", f"a prompt template is a mapping with name and template, not {_a(node)}", node.at)
                continue
            fields = self._fields(node, schema.TEMPLATE, "a prompt template")
            if self._absent(fields.get("name")) or self._absent(fields.get("template")):
                missing = "name" if self._absent(fields.get("name")) else "template"
                self._warn("empty-template", f"the prompt template has no {missing}: left out, as by AIKit", node.at)
                continue
            name = self._name(fields["name"], "the template's name")
            template = self._text(fields["template"], "template")
            if name and name.value.endswith("/"):
                self._error("name", "the template's name ends with `/`: choose another", name.at)
            elif name and template:
                text = self._resolve(fields["template"][1], template.value, "template", f"template `{_short(name.value)}`")
                templates.append(PromptTemplate(name, Located(text, template.at)))
        return tuple(templates)

    def _config(self, pair: tuple[Node, Node] | None) -> Located[str] | None:
        text = self._text(pair, "config")
        if pair is None or text is None or text.value == "":
            return None
        return Located(self._resolve(pair[1], text.value, "config", "config"), text.at)

    def _load_to_memory(self, pair: tuple[Node, Node] | None) -> tuple[Located[str], ...]:
        names: dict[str, Located[str]] = {}
        for node in self._list(pair, "loadToMemory", "NAME"):
            name = self._text((node, node), "a name below loadToMemory")
            if name is None or name.value == "" or "," in name.value or "\\" in name.value:
                self._error("load-to-memory", "loadToMemory lists names of models, without commas and backslashes", node.at)
            elif name.value in names:
                self._error("load-to-memory", f"loadToMemory lists `{_short(name.value)}` twice", name.at)
            else:
                names[name.value] = name
        return tuple(names.values())

    # What concerns the whole file

    def _resolve(self, node: Node, text: str, kind: compat.Kind, what: str) -> str:
        if id(node) not in self._resolved:
            resolved = compat.resolve(text, kind, self._escapes)
            self._resolved[id(node)] = resolved.text
            if "\0" in resolved.text:
                self._error("nul", f"{what} holds the character U+0000, which no Nix string can hold: remove it", node.at)
            self._readings.setdefault(resolved.reading, []).append(f"{what} (line {node.at.line})")
        return self._resolved[id(node)]

    def _say_readings(self, start: Position) -> None:
        """One line for each way in which texts were read, with the first ones by name."""
        for reading, words in (
            (Reading.SHELL, "AIKit's shell escapes (up to v0.21) are undone in {}: --escapes verbatim keeps them"),
            (Reading.QUOTES, '`\\"` became `"` in {}, all else is kept: AIKit\'s shell would have broken it'),
            (Reading.KEPT, "well-formed as written, so its backslashes stay, which AIKit's shell (up to v0.21) undid, in {}: --escapes shell undoes them"),
        ):
            texts = self._readings.get(reading, [])
            if texts:
                more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
                self._say(Severity.NOTE, "escapes", words.format(", ".join(texts[:3]) + more), start)

    def _collisions(self, models: tuple[Model, ...]) -> None:
        """Two files on one path, or a file where another one needs a folder."""
        files: dict[str, tuple[str, Position, str | None]] = {}
        for model in models:
            self._claim(files, model.path, "model", model.source.at, None)
        for model in models:
            for template in model.prompt_templates:
                self._claim(files, template.path, "template", template.name.at, template.template.value)
        for path, (what, at, _) in files.items():
            parent = path.rpartition("/")[0]
            while parent.startswith(source.MODELS + "/"):
                if parent in files:
                    self._error(
                        "collision", f"the {what} {path} needs a folder where line {files[parent][1].line} has a file: rename one", at
                    )
                parent = parent.rpartition("/")[0]

    def _claim(
        self, files: dict[str, tuple[str, Position, str | None]], path: str, what: str, at: Position, text: str | None
    ) -> None:
        first = files.setdefault(path, (what, at, text))
        if first[1] == at:
            return
        if what == "template" and first[0] == what and first[2] == text:
            self._warn("duplicate-template", f"the same template {path} stands on line {first[1].line} already", at)
            return
        self._error("collision", f"the {what} lands on {path}, as the {first[0]} on line {first[1].line} does: rename one", at)


def _a(node: Node) -> str:
    if node.kind == "scalar":
        return "nothing" if node.is_null else f"the text `{_short(node.text)}`"
    return "a list" if node.kind == "sequence" else "a mapping"


def _short(text: str) -> str:
    """A text for one line of a message: long ones cut, control characters shown as escapes."""
    cut = text if len(text) <= 60 else text[:57] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)
