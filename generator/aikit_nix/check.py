"""`aikit-nix check`: everything that can be found without building, the model files beside the aikitfile included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aikit_nix import aikitfile
from aikit_nix.aikitfile import Aikitfile, Model
from aikit_nix.compat import Escapes
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.reader import printable
from aikit_nix.source import MODELS


def check(path: Path, escapes: Escapes) -> tuple[Diagnostic, ...]:
    """Every finding about one aikitfile, errors included."""
    try:
        parsed, found = aikitfile.read(path, escapes)
    except AikitError as failed:
        return failed.diagnostics
    return (*found, *_combinations(parsed), *_files(parsed, path.parent))


def _combinations(parsed: Aikitfile) -> tuple[Diagnostic, ...]:
    """What `gen` would refuse without options. Only backends can be at odds with the rest of a file."""
    if not parsed.backends:
        return ()
    from aikit_nix import plan

    try:
        plan.make(parsed, plan.Options(), {model.source.value: "0" * 64 for model in parsed.models})
    except AikitError as failed:
        return failed.diagnostics
    return ()


def _files(parsed: Aikitfile, folder: Path) -> Iterator[Diagnostic]:
    local = [model for model in parsed.models if not model.url]
    contexts = _contexts(parsed) if local else {}
    for model in local:
        at = model.source.at
        file = folder / model.source.value
        try:
            if file.is_dir():
                yield _error("local-folder", f"{file} is a folder: list each of its files as a model of its own", at)
            elif not file.is_file():
                yield _error("no-file", f"{file} is not there: put it beside the aikitfile, or correct `source`", at)
            elif file.suffix == ".gguf":
                yield from _header(file, model, contexts)
        except OSError as failed:
            yield _error("no-file", f"{file} cannot be read: {(failed.strerror or str(failed)).lower()}", at)


def _header(file: Path, model: Model, contexts: dict[str, tuple[int, Position]]) -> Iterator[Diagnostic]:
    from aikit_nix import gguf

    try:
        with file.open("rb") as stream:
            header = gguf.read(stream)
    except gguf.NotGgufError as bad:
        yield _warning("not-gguf", f"{file} is called .gguf, but {bad}: is the download complete?", model.source.at)
        return
    context, at = contexts.get(model.path.removeprefix(MODELS + "/"), (0, model.at))
    if header.context_length and context > header.context_length:
        yield _warning(
            "context-size",
            f"context_size {context} is more than the {header.context_length} tokens that {file.name} was trained for",
            at,
        )


def _contexts(parsed: Aikitfile) -> dict[str, tuple[int, Position]]:
    """For each model file that the config gives a context size: that size."""
    from aikit_nix import review, yamltree

    if parsed.config is None:
        return {}
    try:
        root, _ = yamltree.compose(parsed.config.value, parsed.config.at.file)
    except AikitError:
        return {}
    contexts = {}
    for entry in review.read_entries(root):
        size = entry.context_size
        if entry.model and size and size.text.isdecimal() and len(size.text) < 12:
            contexts[entry.model.text] = (int(size.text), parsed.config.at)
    return contexts


def _error(code: str, message: str, at: Position) -> Diagnostic:
    return Diagnostic(Severity.ERROR, code, printable(message), at)


def _warning(code: str, message: str, at: Position) -> Diagnostic:
    return Diagnostic(Severity.WARNING, code, printable(message), at)
