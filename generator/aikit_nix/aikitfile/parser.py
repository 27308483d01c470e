"""The keys of an aikitfile: tree → Aikitfile, with every finding of the file.

What AIKit ignored in silence is a warning, what it built wrong is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice

from aikit_nix import sources
from aikit_nix.aikitfile import escapes as compat
from aikit_nix.aikitfile import review, schema, yamltree
from aikit_nix.aikitfile.escapes import Escapes, Reading
from aikit_nix.aikitfile.reader import Pair, Reader, absent, describe, short
from aikit_nix.aikitfile.types import Aikitfile, Backend, Model, PromptTemplate, Runtime
from aikit_nix.aikitfile.yamltree import Node
from aikit_nix.base.errors import AikitError, Diagnostic, Located, Position, Severity
from aikit_nix.sources import HubFile, Local, Reference, Source, Web, huggingface

_MOST = 100

Pinned = Callable[[Aikitfile], tuple[Aikitfile, list[Diagnostic]]]


def parse(
    data: bytes, file: str, escapes: Escapes = Escapes.AUTO, pinned: Pinned | None = None
) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """The aikitfile in `data`, and warnings and notes by position. `file` is its name in messages.

    Faithful to AIKit (yaml.v2, not strict): unknown keys are ignored, of double keys the last counts, scalars of any
    type are taken as text, null is absent. `pinned` gives each model its pin, and makes a source of several files a model
    for each, before what needs them is looked at. Raises AikitError with every error of the file and with the warnings up to there. Reads nothing but `data`.
    """
    text = yamltree.decode(data, file)
    root, found = yamltree.compose(text, file)
    parser = Parser(file, escapes, found)
    result = parser.aikitfile(root, data)
    if pinned:
        result, odds = pinned(result)
        found += odds
    parser.collisions(result.models)
    errors = _most(found, Severity.ERROR)
    if errors:
        raise AikitError(*sorted([*errors, *_most(found, Severity.WARNING)], key=_order))
    reviewed = list(islice(review.review(result, tuple(text.split("\n"))), 2 * _MOST))
    least = "at least " if len(reviewed) == 2 * _MOST else ""  # of more nobody waits for the number
    shown = [*_most(found + reviewed, Severity.WARNING, least), *_most(found, Severity.NOTE)]
    return result, tuple(sorted(shown, key=_order))


def _most(found: list[Diagnostic], severity: Severity, least: str = "") -> list[Diagnostic]:
    """The first ones of a kind, and how many more there are: a broken file may give thousands."""
    some = [finding for finding in found if finding.severity is severity]
    if len(some) <= _MOST:
        return some
    return [
        *some[:_MOST],
        Diagnostic(severity, "more", f"and {least}{len(some) - _MOST} more like these", some[_MOST].at),
    ]


def _order(finding: Diagnostic) -> tuple[int, int, str]:
    return (finding.at.line, finding.at.column, finding.message) if finding.at else (0, 0, finding.message)


class Parser(Reader):
    """Walks the tree once and collects what it finds wrong instead of stopping at it."""

    def __init__(self, file: str, escapes: Escapes, found: list[Diagnostic]) -> None:
        super().__init__(file, found)
        self._escapes = escapes
        self._resolved: dict[int, str] = {}
        self._readings: dict[Reading, list[tuple[str, Position]]] = {}

    def aikitfile(self, root: Node | None, data: bytes) -> Aikitfile:
        start = root.at if root else Position(self.file, 1, 1)
        nothing = Aikitfile(self.file, data, False, None, (), (), None)
        if root is None or root.is_null:
            self.error("no-api-version", "the file is empty: begin with `apiVersion: v1alpha1`", start)
            return nothing
        if root.kind != "mapping":
            self.error(
                "wrong-type",
                f"an aikitfile is a mapping that begins with `apiVersion: v1alpha1`, not {describe(root)}",
                start,
            )
            return nothing
        key = next((key for key, _ in root.pairs if key.text in ("baseModel", "datasets")), None)
        if key:
            self.error(
                "fine-tuning",
                "this aikitfile fine-tunes a model; aikit-nix builds images for inference: fine-tune with AIKit, then list the result",
                key.at,
            )
            return nothing
        fields = self.fields(root, schema.TOP, "an aikitfile")
        self._api_version(fields, start)
        debug = self.boolean(fields.get("debug"), "debug")
        runtime = self._runtime(fields.get("runtime"))
        backends = self._backends(fields.get("backends"))
        models = self._models(fields.get("models"), start, has_backends=bool(backends) or "backends" in fields)
        config = self._config(fields.get("config"))
        load = self._load_to_memory(fields.get("loadToMemory"))
        self._say_readings()
        return Aikitfile(self.file, data, debug, runtime, backends, models, config, load)

    # The keys

    def _api_version(self, fields: dict[str, Pair], start: Position) -> None:
        had = len(self.found)
        version = self.text(fields.get("apiVersion"), "apiVersion")
        if version is None:
            if len(self.found) == had:
                self.error(
                    "no-api-version",
                    "apiVersion is missing: begin the file with `apiVersion: v1alpha1`",
                    start,
                )
        elif version.value != "v1alpha1":
            self.error(
                "api-version",
                f"apiVersion `{short(version.value)}` is not known: write `v1alpha1`",
                version.at,
            )

    def _runtime(self, pair: Pair | None) -> Located[Runtime] | None:
        text = self.text(pair, "runtime")
        if text is None or text.value == "":
            return None
        if text.value in schema.REFUSED_RUNTIMES:
            self.error("runtime", f"runtime `{text.value}` {schema.REFUSED_RUNTIMES[text.value]}", text.at)
            return None
        if text.value not in schema.RUNTIMES:
            known = ", ".join(schema.RUNTIMES)
            self.error(
                "runtime",
                f"runtime `{short(text.value)}` is not one of {known}{schema.guess(text.value, schema.RUNTIMES)}",
                text.at,
            )
            return None
        return Located(Runtime(text.value), text.at)

    def _backends(self, pair: Pair | None) -> tuple[Located[Backend], ...]:
        backends: dict[Backend, Located[Backend]] = {}
        for node in self.list_of(pair, "backends", "stablediffusion"):
            text = self.text((node, node), "a backend")
            if text is None:
                continue
            if text.value in schema.REFUSED_BACKENDS:
                self.error("backend", f"backend `{text.value}` {schema.REFUSED_BACKENDS[text.value]}", text.at)
            elif text.value in set(Backend):
                backend = Backend(text.value)
                if backend in backends:
                    self.warn("duplicate-backend", f"backend `{backend}` is listed twice", text.at)
                backends.setdefault(backend, Located(backend, text.at))
            elif text.value not in schema.IMPLIED_BACKENDS:
                known = ", ".join([*Backend, *schema.IMPLIED_BACKENDS])
                self.error(
                    "backend",
                    f"backend `{short(text.value)}` is not one of {known}{schema.guess(text.value, Backend)}",
                    text.at,
                )
        return tuple(backends.values())

    def _models(self, pair: Pair | None, start: Position, *, has_backends: bool) -> tuple[Model, ...]:
        had = len(self.found)
        nodes = self.list_of(pair, "models", "name: …")
        if not nodes and len(self.found) == had:
            runner = (
                " (AIKit's runner images, which download a model when they start, have no counterpart here)"
                if has_backends
                else ""
            )
            self.error(
                "no-models",
                f"no models: list at least one below `models:`{runner}",
                pair[0].at if pair else start,
            )
        models = (self._model(node) for node in nodes)
        return tuple(model for model in models if model)

    def _model(self, node: Node) -> Model | None:
        if node.kind != "mapping":
            self.error("wrong-type", f"a model is a mapping with name and source, not {describe(node)}", node.at)
            return None
        fields = self.fields(node, schema.MODEL, "a model")
        name = self._name(fields.get("name"), "the model's name")
        if name is None and ("name" not in fields or fields["name"][1].is_null):
            self.error("no-name", "the model has no name: add `name:`", node.at)
        where = self._source(fields.get("source"), node.at)
        sha256 = self._sha256(fields.get("sha256"))
        if where and sha256:
            self._sha256_fits(where.value, sha256)
        templates = self._templates(fields.get("promptTemplates"))
        if name is None or where is None:
            return None
        path = sources.destination(where.value, name.value)
        return Model(node.at, name, where, sha256, templates, path)

    def _sha256_fits(self, source: Source, sha256: Located[str]) -> None:
        if sources.several(source):
            self.error(
                "sha256",
                "the source stands for several files, which one sha256 cannot pin: `aikit-nix lock` does",
                sha256.at,
            )
        elif not isinstance(source, Web):
            kind = "local file" if isinstance(source, Local) else source.text.partition("://")[0] + ":// file"
            if not source.text.startswith(("http:", "https:")):
                self.say(
                    Severity.NOTE,
                    "sha256-checked",
                    f"AIKit did not check the sha256 of a {kind}; here it is checked",
                    sha256.at,
                )

    def _name(self, pair: Pair | None, what: str) -> Located[str] | None:
        name = self.text(pair, what)
        if name is None:
            return None
        if name.value == "":
            self.error("name", f"{what} is empty: give it one", name.at)
            return None
        problem = sources.name_problem(name.value)
        if problem:
            self.error("name", f"{what} {problem}: choose another", name.at)
            return None
        return name

    def _source(self, pair: Pair | None, at: Position) -> Located[Source] | None:
        had = len(self.found)
        text = self.text(pair, "the model's source")
        if text is None:
            if len(self.found) == had:
                self.error(
                    "no-source",
                    "the model has no source: add `source:` with a URL or a file beside the aikitfile",
                    at,
                )
            return None
        try:
            found = sources.read(text.value)
        except sources.RefusedError as refused:
            self.error("source", f"the source `{short(text.value)}` {refused}", text.at)
            return None
        note = huggingface.note(found) if isinstance(found, HubFile) else None
        if note:
            self.say(Severity.NOTE, "source", f"`{short(text.value)}` {note}", text.at)
        return Located(found, text.at)

    def _sha256(self, pair: Pair | None) -> Located[str] | None:
        text = self.text(pair, "sha256")
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
        self.error("sha256", f"sha256 must be 64 lower-case hex digits and nothing else: {hint}", text.at)
        return None

    def _templates(self, pair: Pair | None) -> tuple[PromptTemplate, ...]:
        templates = []
        for node in self.list_of(pair, "promptTemplates", "name: …"):
            if node.kind != "mapping":
                self.error(
                    "wrong-type",
                    f"a prompt template is a mapping with name and template, not {describe(node)}",
                    node.at,
                )
                continue
            fields = self.fields(node, schema.TEMPLATE, "a prompt template")
            if absent(fields.get("name")) or absent(fields.get("template")):
                missing = "name" if absent(fields.get("name")) else "template"
                self.warn("empty-template", f"the prompt template has no {missing}: left out, as by AIKit", node.at)
                continue
            name = self._name(fields["name"], "the template's name")
            template = self.text(fields["template"], "template")
            if name and name.value.endswith("/"):
                self.error("name", "the template's name ends with `/`: choose another", name.at)
            elif name and template:
                text = self._resolve(
                    fields["template"][1], template.value, "template", f"template `{short(name.value)}`"
                )
                templates.append(PromptTemplate(name, Located(text, template.at)))
        return tuple(templates)

    def _config(self, pair: Pair | None) -> Located[str] | None:
        text = self.text(pair, "config")
        if pair is None or text is None or text.value == "":
            return None
        return Located(self._resolve(pair[1], text.value, "config", "config"), text.at)

    def _load_to_memory(self, pair: Pair | None) -> tuple[Located[str], ...]:
        names: dict[str, Located[str]] = {}
        for node in self.list_of(pair, "loadToMemory", "NAME"):
            name = self.text((node, node), "a name below loadToMemory")
            if name is None or name.value == "" or "," in name.value or "\\" in name.value:
                self.error(
                    "load-to-memory",
                    "loadToMemory lists names of models, without commas and backslashes",
                    node.at,
                )
            elif name.value in names:
                self.error("load-to-memory", f"loadToMemory lists `{short(name.value)}` twice", name.at)
            else:
                names[name.value] = name
        return tuple(names.values())

    # What concerns the whole file

    def _resolve(self, node: Node, text: str, kind: compat.Kind, what: str) -> str:
        if id(node) not in self._resolved:
            resolved = compat.resolve(text, kind, self._escapes)
            self._resolved[id(node)] = resolved.text
            if "\0" in resolved.text:
                self.error(
                    "nul",
                    f"{what} holds the character U+0000, which no Nix string can hold: remove it",
                    node.at,
                )
            self._readings.setdefault(resolved.reading, []).append((f"{what} (line {node.at.line})", node.at))
        return self._resolved[id(node)]

    def _say_readings(self) -> None:
        """One line for each way in which texts were read, with the first ones by name."""
        for reading, words in (
            (
                Reading.SHELL,
                "AIKit's shell escapes (up to v0.21) are undone in {}: --escapes verbatim keeps them",
            ),
            (Reading.QUOTES, '`\\"` became `"` in {}, all else is kept: AIKit\'s shell would have broken it'),
            (
                Reading.KEPT,
                "well-formed as written, so its backslashes stay, which AIKit's shell (up to v0.21) undid, in {}: --escapes shell undoes them",
            ),
        ):
            texts = self._readings.get(reading, [])
            if texts:
                more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
                some = ", ".join(what for what, _ in texts[:3]) + more
                self.say(Severity.NOTE, "escapes", words.format(some), texts[0][1])

    def collisions(self, models: tuple[Model, ...]) -> None:
        """Two files on one path, or a file where another one needs a folder."""
        files: dict[str, tuple[str, Position, str | None]] = {}
        for model in models:
            if not (model.is_several and isinstance(model.source.value, Reference)):  # only the lock knows its paths
                self._claim(files, model.path, "model", model.source.at, None)
        for model in models:
            for template in model.prompt_templates:
                self._claim(files, template.path, "template", template.name.at, template.template.value)
        for path, (what, at, _) in files.items():
            parent = path.rpartition("/")[0]
            while parent.startswith(sources.MODELS + "/"):
                if parent in files:
                    self.error(
                        "collision",
                        f"the {what} {path} needs a folder where line {files[parent][1].line} has a file: rename one",
                        at,
                    )
                parent = parent.rpartition("/")[0]

    def _claim(
        self,
        files: dict[str, tuple[str, Position, str | None]],
        path: str,
        what: str,
        at: Position,
        text: str | None,
    ) -> None:
        first = files.setdefault(path, (what, at, text))
        if first[1] == at:
            return
        if what == "template" and first[0] == what and first[2] == text:
            self.warn("duplicate-template", f"the same template {path} stands on line {first[1].line} already", at)
            return
        self.error(
            "collision",
            f"the {what} lands on {path}, as the {first[0]} on line {first[1].line} does: rename one",
            at,
        )
