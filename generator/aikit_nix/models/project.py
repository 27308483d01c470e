"""An aikitfile with its lock: read once, and its models pinned, local ones by their bytes.

Nothing here touches the network: `aikit-nix lock` (locking.py) and `aikit-nix fetch` (fetch.py) do.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from aikit_nix import sources
from aikit_nix.aikitfile import parser, yamltree
from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.aikitfile.types import Aikitfile, Model, Pin
from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, collect, error
from aikit_nix.models import lock
from aikit_nix.models.lock import Lock
from aikit_nix.sources import Local
from aikit_nix.sources.gguf import Facts


@dataclass(frozen=True)
class Project:
    """An aikitfile with its lock applied, the folder that its paths count from, and what was found on the way."""

    path: Path
    aikitfile: Aikitfile
    lock: Lock | None
    findings: tuple[Diagnostic, ...]

    @property
    def folder(self) -> Path:
        """Where the aikitfile lies."""
        return self.path.parent


def read_as_written(path: Path) -> Aikitfile:
    """An aikitfile without its lock, as `aikit-nix lock` wants it. Raises AikitError."""
    return parse(yamltree.read_bytes(path), str(path))[0]


def read(path: Path, escapes: Escapes = Escapes.AUTO, lock_path: Path | None = None) -> Project:
    """Read an aikitfile, and the lock beside it or at `lock_path`. Raises AikitError with all errors of the file."""
    data = yamltree.read_bytes(path)
    pins = lock.read(lock_path or lock.beside(path))
    if lock_path and pins is None:
        raise error(f"{lock_path} is not there: write it with `aikit-nix lock --lock {lock_path}`", code="lock")
    aikitfile, found = parse(data, str(path), escapes, pins)
    return Project(path, aikitfile, pins, found)


def parse(
    data: bytes, file: str, escapes: Escapes = Escapes.AUTO, pins: Lock | None = None
) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """The aikitfile in `data` with the pins of a lock and of its own, and the findings. Raises AikitError."""
    return parser.parse(data, file, escapes, lambda aikitfile: lock.apply(aikitfile, pins))


def pin(project: Project, added: list[Path] | None = None) -> tuple[Aikitfile, tuple[tuple[Model, Path], ...]]:
    """The aikitfile with a pin for every model, and the local files that it stands for.

    Local files are read and hashed unless that was done before; with `added` they enter the Nix store while they are
    read, and those that did are added to the list. Raises AikitError for all models that nothing pins, and for local
    files that are missing or not what their sha256 or the lock says.
    """
    models = project.aikitfile.models
    folders = {(model.name.value, model.source.value.text): model for model in models if model.is_locked}
    pinned = collect(
        [
            *(partial(_pinned, model, project.folder, added) for model in models),
            *(partial(_require_locked, model, project) for model in folders.values()),
        ]
    )
    found = [each for some in pinned for each in some]
    if missing := lock.unpinned(model for model, _ in found):
        raise missing
    local = tuple((model, file) for model, file in found if file)
    return replace(project.aikitfile, models=tuple(model for model, _ in found)), local


def _pinned(model: Model, folder: Path, added: list[Path] | None) -> list[tuple[Model, Path | None]]:
    there = local_files(model, folder) if model.is_local else []
    if not there:
        # One from elsewhere; or the lock knows the file, which may be in the store, or come from a cache
        return [(model, None)]
    models = _spread(model, [(path, hash_local(model, path, file, added)) for path, file in there])
    return [(each, file) for each, (_, file) in zip(models, there, strict=True)]


def _spread(model: Model, pins: list[tuple[str, Pin]]) -> list[Model]:
    """A model for each file of a local source; its templates are the first one's."""
    first, *others = [replace(model, path=path, pin=pin) for path, pin in pins]
    return [first, *(replace(each, prompt_templates=()) for each in others)]


def spread(project: Project) -> Aikitfile:
    """The aikitfile with a model for each local file that is there, and its size: what `pin` makes of it, but unread."""
    models: list[Model] = []
    for model in project.aikitfile.models:
        found = [model]
        if model.is_local and not model.is_locked:
            with suppress(AikitError, OSError):  # `pin` and `check` say what is wrong with it
                pin = model.pin or Pin("0" * 64)
                there = local_files(model, project.folder)
                found = _spread(model, [(path, replace(pin, size=file.stat().st_size)) for path, file in there])
        models += found
    return replace(project.aikitfile, models=tuple(models))


def check_claims(project: Project) -> list[str]:
    """Compare what the lock claims with the bytes that are here, or were; the paths of those that never were.

    Raises AikitError where they say otherwise.
    """
    from aikit_nix.models import seen

    return seen.check(project.lock.files(), project.lock.file) if project.lock else []


def _require_locked(model: Model, project: Project) -> list[tuple[Model, Path | None]]:
    """Raises AikitError where the model is a local folder with a file that the lock does not know."""
    source = model.source.value
    entry = project.lock.entries.get((model.name.value, source.text)) if project.lock else None
    if entry and isinstance(source, Local) and (project.folder / source.path).is_dir():
        destination = sources.destination(source, model.name.value)
        try:
            names = [*sources.local.walk(project.folder / source.path, source.path)]
        except sources.RefusedError as refused:
            raise _unfit(model, refused) from None
        if new := sorted({posixpath.join(destination, name) for name in names} - {path for path, _ in entry.files}):
            message = f"{new[0]} is not in the lock, and in the folder: run `aikit-nix lock`, or take it away"
            raise error(message, model.source.at, "not-locked")
    return []


def _unfit(model: Model, refused: sources.RefusedError) -> AikitError:
    return error(f"source {model.source.value.text!r} {refused}", model.source.at, "local-file")


def facts(project: Project) -> dict[str, Facts]:
    """What is known of the models' GGUFs, by their path in the image: by the lock, which alone says it where it has the
    model, so that the plan is the same where a local file is absent; else by the local files.
    """
    found: dict[str, Facts | None] = {}
    for model in project.aikitfile.models:
        if model.is_locked and model.pin:
            found[model.path] = model.pin.gguf
        elif model.is_local:
            with suppress(AikitError):  # `pin` and `check` say what is wrong with it
                found |= {
                    path: look(model, path, file, report=lambda _: None)
                    for path, file in local_files(model, project.folder)
                }
    return {path: said for path, said in found.items() if said}


def local_files(model: Model, folder: Path) -> list[tuple[str, Path]]:
    """The files of a local source: path in the image, file on the disk. Raises AikitError where one is missing.

    By the lock a model is one file, which need not be there.
    """
    source = model.source.value
    assert isinstance(source, Local)  # noqa: S101 (callers ask for local ones only)
    destination = sources.destination(source, model.name.value)
    if model.is_locked:
        file = sources.local.place(source, folder, destination, model.path)
        return [(model.path, file)] if os.path.lexists(file) else []
    try:
        found = sources.local.files(source, folder, destination)
    except sources.RefusedError as refused:
        raise _unfit(model, refused) from None
    if model.pin is None:
        for target in _outside(found, folder):
            if closed := sources.local.private(target, folder):
                mend = f"chmod o+{'r' if closed == target else 'x'} {closed}"
                raise error(
                    f"source {source.text!r} leads to {target}, which not everybody may read, unlike the Nix store and the"
                    f" image: if it is the model, write its sha256 here, or `{mend}`",
                    model.source.at,
                    "link-outside",
                )
    return found


def links(models: Iterable[Model], folder: Path) -> Iterator[Diagnostic]:
    """A warning for each local source whose links lead out of the aikitfile's folder, unless its bytes are pinned.

    Who wrote the aikitfile may have made the link, too, and what it leads to becomes readable for everybody. The hash of
    a pin is proof that the bytes are no secret of this machine's.
    """
    for model in models:
        if model.is_local and model.pin is None:
            with suppress(AikitError):  # `pin` and `check` say what is wrong with it
                targets = _outside(local_files(model, folder), folder)
                more = f" (and {len(targets) - 1} files more)" if len(targets) > 1 else ""
                if targets:
                    message = f"the source leads to {targets[0]}{more}: what is there goes into the image"
                    yield Diagnostic(Severity.WARNING, "link-outside", message, model.source.at)


def _outside(found: list[tuple[str, Path]], folder: Path) -> list[Path]:
    return [target for _, file in found if (target := sources.local.outside(file, folder))]


def look(
    model: Model,
    path: str,
    file: Path,
    *,
    as_is: bool = False,
    report: Callable[[list[Diagnostic]], object] = console.report,
) -> Facts | None:
    """What a local file says of itself. Raises AikitError where it is not what its name says, or cannot be read."""
    from aikit_nix.models.remote import judged
    from aikit_nix.sources import judge

    try:
        return judged(model, posixpath.basename(path), lambda: judge.of_file(file), as_is=as_is, report=report)
    except OSError as failed:
        why = (failed.strerror or str(failed)).lower()
        raise error(f"{file} cannot be read: {why}", model.source.at, "local-file") from None


def hash_local(model: Model, path: str, file: Path, added: list[Path] | None = None, *, as_is: bool = False) -> Pin:
    """What the bytes of a local file are, read once while it stays as it is.

    With `added`, a file that has to be read enters the Nix store at the same time, and is added to the list where the
    store did not have it. Raises AikitError where it is not what the aikitfile or the lock says: then the store gets nothing.
    """
    from aikit_nix.models import seen
    from aikit_nix.models.remote import layer_of
    from aikit_nix.nix import store
    from aikit_nix.nix.stream import StoreStream

    name = store.name(posixpath.basename(path))
    as_is = as_is or bool(model.pin and model.pin.as_is)
    is_known = model.is_locked and model.pin and model.pin.gguf
    facts = None if is_known else look(model, path, file, as_is=as_is)
    with ExitStack() as stack:
        streams: list[StoreStream] = []

        def take(block: bytes) -> None:
            if added is not None:
                if not streams:
                    streams.append(StoreStream(name))
                    stack.callback(streams[0].abort)
                streams[0].write(block)

        try:
            digests = seen.hashed(path, file, take)
        except AikitError as failed:
            raise AikitError(*(replace(each, at=model.source.at) for each in failed.diagnostics)) from None
        _check(model, path, digests.sha256)
        if added is not None and streams and not store.present([(name, digests.sha256)])[0] and streams[0].finish():
            added.append(file)
    found = Pin(digests.sha256, digests.size, digests.blake3, layer_of(path, digests), as_is=as_is)
    before = seen.recall(path, found)
    found = replace(found, gguf=facts or (before and before.gguf) or (look(model, path, file) if is_known else None))
    seen.remember(path, found)
    return replace(found, gguf=model.pin.gguf) if model.is_locked and model.pin else found


def _check(model: Model, path: str, sha256: str) -> None:
    """Raises AikitError where a local file has another hash than it should."""
    if path != model.path:
        return
    text = model.source.value.text
    if model.sha256 and model.sha256.value != sha256:
        raise error(
            f"source {text!r} has the sha256 {sha256}: this is not the file that the aikitfile means",
            model.sha256.at,
            "sha256-mismatch",
        )
    if model.pin and model.pin.sha256 != sha256:
        raise error(
            f"source {text!r} has the sha256 {sha256}, the lock says {model.pin.sha256}:"
            " put the file back, or pin the new one with `aikit-nix lock`",
            model.source.at,
            "sha256-mismatch",
        )
