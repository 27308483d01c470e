"""What a valid aikitfile most likely gets wrong: names that nothing answers to, templates that nothing uses.

AIKit found none of it: the image was built, and the server answered oddly. So everything here is a warning.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from aikit_nix.aikitfile import gotemplate, localai_config, schema
from aikit_nix.aikitfile.innertext import Text
from aikit_nix.aikitfile.localai_config import ConfigEntry
from aikit_nix.aikitfile.reader import short
from aikit_nix.aikitfile.types import Aikitfile, Backend
from aikit_nix.base.errors import Diagnostic, Position, Severity
from aikit_nix.sources import MODELS

# What LocalAI calls the backends, and what in an aikitfile brings them.
_BACKENDS: dict[str, Backend | None] = {
    "exllama": Backend.EXLLAMA2,
    "exllama2": Backend.EXLLAMA2,
    "llama": None,
    "llama-cpp": None,
    "stablediffusion": Backend.STABLEDIFFUSION,
    "stablediffusion-ggml": Backend.STABLEDIFFUSION,
}


def review(aikitfile: Aikitfile, lines: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Warnings about a valid aikitfile, whose text has these lines."""
    config = localai_config.read(aikitfile)
    entries = config.entries if config else ()
    if config:
        image = _Image.of(aikitfile)
        for entry in entries:
            yield from _entry(entry, image, config.text)
    yield from _templates(aikitfile, entries, lines)
    names = {entry.name for entry in entries if entry.name} | {model.name.value for model in aikitfile.models}
    for wanted in aikitfile.load_to_memory:
        if wanted.value not in names:
            yield _warning(
                "load-to-memory", f"no model is called `{wanted.value}`{schema.guess(wanted.value, names)}", wanted.at
            )


@dataclass(frozen=True)
class _Image:
    """What a config can name: paths below /models, templates, backends."""

    files: frozenset[str]
    folders: tuple[str, ...]  # or files beside the aikitfile, where no lock says which
    paths: frozenset[str]
    templates: frozenset[str]
    backends: frozenset[Backend]

    @classmethod
    def of(cls, aikitfile: Aikitfile) -> _Image:
        files = frozenset(model.path.removeprefix(MODELS + "/") for model in aikitfile.models)
        return cls(
            files,
            tuple(
                model.path.removeprefix(MODELS + "/") + "/"
                for model in aikitfile.models
                if model.is_local and not model.is_locked
            ),
            files | {parent for file in files for parent in _parents(file)},
            frozenset(
                posixpath.normpath(template.name.value)
                for model in aikitfile.models
                for template in model.prompt_templates
            ),
            frozenset(backend.value.built for backend in aikitfile.backends),
        )


def _entry(entry: ConfigEntry, image: _Image, text: Text) -> Iterator[Diagnostic]:
    files = image.files
    for value in entry.files():
        name = value.node.text
        if (
            name in files
            or name.startswith(image.folders)
            or posixpath.normpath(name).removeprefix(MODELS + "/") in image.paths
        ):
            continue
        # a backend in Python fetches what is no file from Hugging Face, LocalAI fetches URLs
        if "://" in name:
            message = f"`{short(name)}` would be downloaded when the server starts: list it under models"
        else:
            message = f"no model lands on {MODELS}/{short(name)}{schema.guess(name, files)}"
        yield _warning("config-model", message, value.at)
    backend = entry.words("backend")
    if backend:
        needed = _BACKENDS.get(backend)
        at = entry.values["backend"].at
        if backend not in _BACKENDS:
            yield _warning(
                "config-backend", f"the image has no backend `{short(backend)}`{schema.guess(backend, _BACKENDS)}", at
            )
        elif needed and needed not in image.backends:
            yield _warning(
                "config-backend", f"the backend `{backend}` is not installed: list `{needed}` under backends", at
            )
    for value in entry.templates:
        node = value.node
        if "{{" in node.text or "{%" in node.text:
            yield from _syntax(node.text, text, node.at.line + (node.style in ("|", ">")))
        elif re.fullmatch(r"\S+", node.text) and posixpath.normpath(node.text) not in image.templates:
            yield _warning(
                "config-template",
                f"no template is called `{short(node.text)}`{schema.guess(node.text, image.templates)}",
                value.at,
            )


def _templates(aikitfile: Aikitfile, entries: tuple[ConfigEntry, ...], lines: tuple[str, ...]) -> Iterator[Diagnostic]:
    # without a config, LocalAI takes FILE.tmpl for the model FILE
    used = {posixpath.normpath(value.node.text) for entry in entries for value in entry.templates}
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


def _parents(file: str) -> Iterator[str]:
    while file := posixpath.dirname(file):
        yield file


def _warning(code: str, message: str, at: Position) -> Diagnostic:
    return Diagnostic(Severity.WARNING, code, message, at)
