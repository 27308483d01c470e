"""What a valid aikitfile most likely gets wrong: names that nothing answers to, templates that nothing uses.

AIKit found none of it: the image was built, and the server failed or answered oddly. So everything here is a warning.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aikit_nix import gotemplate, schema, yamltree
from aikit_nix.aikitfile import Aikitfile, Backend
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.reader import short
from aikit_nix.sources import MODELS
from aikit_nix.yamltree import Node

# The keys below `template:` whose value is a template's name or the template itself: LocalAI, core/config
_TEMPLATE_KEYS = ("chat", "chat_message", "completion", "edit", "function", "multimodal")
# What LocalAI calls the backends, and what in an aikitfile brings them.
_BACKENDS: dict[str, Backend | None] = {
    "llama": None,
    "llama-cpp": None,
    "stablediffusion": Backend.STABLEDIFFUSION,
    "stablediffusion-ggml": Backend.STABLEDIFFUSION,
    "exllama": Backend.EXLLAMA,
    "exllama2": Backend.EXLLAMA2,
}


@dataclass(frozen=True)
class Entry:
    """One model configuration: what of it concerns the rest of the file. Nodes stand in the config's text."""

    name: Node | None
    backend: Node | None
    model: Node | None
    mmproj: Node | None
    context_size: Node | None
    templates: tuple[Node, ...]


@dataclass(frozen=True)
class Text:
    """A text of the aikitfile: its lines as they became, and all lines of the file, to point into it."""

    at: Position
    rows: tuple[str, ...]
    lines: tuple[str, ...]

    def place(self, line: int, word: str, column: int = 0) -> Position:
        """Where in the file the `word` stands that is in this line (from 1) of the text, in or behind this column (from 0).

        Only a literal block has the same lines in the file as in its text; for other styles, the text's beginning.
        """
        first = self.lines[self.at.line - 1][self.at.column - 1 :] if self.at.line <= len(self.lines) else ""
        number = self.at.line + line
        if not first.startswith("|") or number > len(self.lines):
            return self.at
        source = self.lines[number - 1]
        row = self.rows[line - 1] if line <= len(self.rows) else ""
        if re.sub(r"\\+", "", source).strip() != re.sub(r"\\+", "", row).strip():
            return self.at
        begin = len(source) - len(source.lstrip())
        # unescaping only ever made lines shorter
        behind = begin - (len(row) - len(row.lstrip())) + column
        found = source.find(word, behind) if word else -1
        return replace(self.at, line=number, column=(found if found >= 0 else begin) + 1)


def review(aikitfile: Aikitfile, lines: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Warnings about a valid aikitfile, whose text has these lines."""
    config = aikitfile.config
    entries: tuple[Entry, ...] = ()
    if config:
        text = Text(config.at, tuple(config.value.split("\n")), lines)
        try:
            root, _ = yamltree.compose(config.value, config.at.file)
        except AikitError as broken:
            problem = broken.diagnostics[0]
            line = problem.at.line if problem.at else 1
            yield _warning(
                "config-yaml", f"the server cannot read this config: {problem.message}", text.place(line, "")
            )
        else:
            if root and (root.kind != "sequence" or any(item.kind != "mapping" for item in root.items)):
                yield _warning(
                    "config-yaml", "the config is not a list of model configurations: begin with `- name: …`", config.at
                )
            entries = tuple(read_entries(root))
            image = _Image.of(aikitfile)
            for entry in entries:
                yield from _entry(entry, image, text)
    yield from _templates(aikitfile, entries, lines)
    names = {entry.name.text for entry in entries if entry.name} | {model.name.value for model in aikitfile.models}
    for wanted in aikitfile.load_to_memory:
        if wanted.value not in names:
            yield _warning(
                "load-to-memory", f"no model is called `{wanted.value}`{schema.guess(wanted.value, names)}", wanted.at
            )


def read_entries(root: Node | None) -> Iterator[Entry]:
    """The model configurations of a config: a list of them, or one alone."""
    for item in (root.items if root.kind == "sequence" else [root]) if root else []:
        fields = _fields(item)
        templates = _fields(fields.get("template"))
        yield Entry(
            _scalar(fields.get("name")),
            _scalar(fields.get("backend")),
            _scalar(_fields(fields.get("parameters")).get("model")),
            _scalar(fields.get("mmproj")),
            _scalar(fields.get("context_size")),
            tuple(node for key in _TEMPLATE_KEYS if (node := _scalar(templates.get(key)))),
        )


@dataclass(frozen=True)
class _Image:
    """What a config can name: paths below /models, templates, backends."""

    files: frozenset[str]
    paths: frozenset[str]
    templates: frozenset[str]
    backends: frozenset[Backend]

    @classmethod
    def of(cls, aikitfile: Aikitfile) -> _Image:
        files = frozenset(model.path.removeprefix(MODELS + "/") for model in aikitfile.models)
        return cls(
            files,
            files | {parent for file in files for parent in _parents(file)},
            frozenset(
                posixpath.normpath(template.name.value)
                for model in aikitfile.models
                for template in model.prompt_templates
            ),
            frozenset(backend.value for backend in aikitfile.backends),
        )


def _entry(entry: Entry, image: _Image, text: Text) -> Iterator[Diagnostic]:
    files = image.files
    for node in (entry.model, entry.mmproj):
        if (
            node is None
            or node.text in files
            or posixpath.normpath(node.text).removeprefix(MODELS + "/") in image.paths
        ):
            continue
        # a backend in Python fetches what is no file from Hugging Face, LocalAI fetches URLs
        if "://" in node.text:
            message = f"`{short(node.text)}` would be downloaded when the server starts: list it under models"
        else:
            message = f"no model lands on {MODELS}/{short(node.text)}{schema.guess(node.text, files)}"
        yield _warning("config-model", message, text.place(node.at.line, node.text, node.at.column - 1))
    backend = entry.backend
    if backend:
        needed = _BACKENDS.get(backend.text)
        at = text.place(backend.at.line, backend.text, backend.at.column - 1)
        if backend.text not in _BACKENDS:
            yield _warning(
                "config-backend",
                f"the image has no backend `{short(backend.text)}`{schema.guess(backend.text, _BACKENDS)}",
                at,
            )
        elif needed and needed not in image.backends:
            yield _warning(
                "config-backend", f"the backend `{backend.text}` is not installed: list `{needed}` under backends", at
            )
    for node in entry.templates:
        if "{{" in node.text or "{%" in node.text:
            yield from _syntax(node.text, text, node.at.line + (node.style in ("|", ">")))
        elif re.fullmatch(r"\S+", node.text) and posixpath.normpath(node.text) not in image.templates:
            yield _warning(
                "config-template",
                f"no template is called `{short(node.text)}`{schema.guess(node.text, image.templates)}",
                text.place(node.at.line, node.text, node.at.column - 1),
            )


def _templates(aikitfile: Aikitfile, entries: tuple[Entry, ...], lines: tuple[str, ...]) -> Iterator[Diagnostic]:
    # without a config, LocalAI takes FILE.tmpl for the model FILE
    used = {posixpath.normpath(node.text) for entry in entries for node in entry.templates}
    used |= {model.path.removeprefix(MODELS + "/") for model in aikitfile.models}
    for model in aikitfile.models:
        for template in model.prompt_templates:
            name, text = template.name, template.template
            if posixpath.normpath(name.value) not in used:
                why = "no entry of the config names it" if aikitfile.config else "there is no config that names it"
                yield _warning("unused-template", f"nothing uses the template `{short(name.value)}`: {why}", name.at)
            yield from _syntax(text.value, Text(text.at, tuple(text.value.split("\n")), lines), 1)


def _syntax(template: str, text: Text, first: int) -> Iterator[Diagnostic]:
    """What Go's parser would refuse, but not for Jinja templates, which LocalAI takes too."""
    if "{%" in template:
        return
    for defect in gotemplate.defects(template)[:3]:
        line = first + template.count("\n", 0, defect.offset)
        begin = template.rfind("\n", 0, defect.offset) + 1
        whole = template[begin:].split("\n")[0]
        # a template in a config is indented once more
        deep = max(0, text.rows[line - 1].find(whole)) if line <= len(text.rows) else 0
        column = defect.offset - begin
        place = text.place(line, whole[column : column + 8], deep + column)
        yield _warning("template-syntax", f"not a Go template: {defect.message}", place)


def _fields(node: Node | None) -> dict[str, Node]:
    if node is None or node.kind != "mapping":
        return {}
    return {key.text: value for key, value in node.pairs if key.kind == "scalar"}


def _scalar(node: Node | None) -> Node | None:
    return node if node and node.kind == "scalar" and not node.is_null and node.text else None


def _parents(file: str) -> Iterator[str]:
    while file := posixpath.dirname(file):
        yield file


def _warning(code: str, message: str, at: Position) -> Diagnostic:
    return Diagnostic(Severity.WARNING, code, message, at)
