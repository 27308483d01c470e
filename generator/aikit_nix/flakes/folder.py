"""A flake's folder: it holds the old flake or the new one, whatever fails; and what of it Nix sees.

What changes at a `gen` is the folder aikit/, exchanged in one step, and flake.nix where it is ours. flake.lock is the
user's: it is written where there is none. A run that was killed in between leaves parts that a build refuses by name (see
nix/default.nix) and the next run puts right.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.plan import SourceFile
from aikit_nix.flakes.write import AIKIT, Files
from aikit_nix.nix import command as nix

_TEMPORARY = ".aikit-nix-flake-"
_MAX_BYTES = 16 << 20  # of a file that may be ours
_MAX_PLAN = 64 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class Written:
    """What became of a folder: files and folders written, and set aside; `kept` are the user's own that were left."""

    written: tuple[str, ...]
    backups: tuple[Path, ...]
    kept: tuple[Path, ...]


def write(new: Files, folder: Path, *, force: bool = False) -> Written:
    """Write a flake into a folder.

    What was edited in aikit/ since it was written is set aside, as `aikit~`; an edited flake.nix is left as it is, and set
    aside with `force`. Raises AikitError, with nothing changed, where flake.nix or aikit/ is not ours at all and `force` is
    not set.
    """
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is no folder: name another one with --flake")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.alone(folder):
            return _write(new, folder, force=force)
    except OSError as failed:
        raise error(f"cannot write the flake to {folder}: {files.reason(failed)} ({failed.filename})") from None


def _write(new: Files, folder: Path, *, force: bool) -> Written:
    aikit, nix_file, lock = (folder / name for name in (AIKIT, "flake.nix", "flake.lock"))
    seals, left = flake.read_seals(folder), list(folder.glob(f"{_TEMPORARY}*"))
    # A killed run had exchanged aikit/, perhaps, and not flake.nix yet, and set nothing aside: what it left tells
    known = [seals, *map(flake.read_seals, left)]
    is_ours = nix_file.is_file() and _is_sealed(nix_file, known)
    had_aikit, had_flake = os.path.lexists(aikit), os.path.lexists(nix_file)
    foreign = aikit if had_aikit and not seals else nix_file if had_flake and not (had_aikit or is_ours) else None
    if foreign and not force:
        raise error(
            f"{foreign} was not written by aikit-nix: name another folder with --flake, or set it aside with --force",
            code="foreign-files",
        )
    is_edited = had_aikit and (not seals or _is_edited(folder, seals))
    replaces = "flake.nix" in new.content and (not had_flake or is_ours or force)
    backups = []
    for each in left:
        if (said := flake.read_seals(each)) and _is_edited(each, said):
            backups.append(_set_aside(each / AIKIT, aikit))
        if said and (each / "flake.nix").exists() and not _is_sealed(each / "flake.nix", known):
            backups.append(_set_aside(each / "flake.nix", nix_file))
        _remove(each)
    with _scratch(folder) as fresh:
        for path, content in [*new.content.items(), *([("flake.lock", new.lock)] if new.lock else [])]:
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_bytes(content)
        places = [aikit, *([lock] if new.lock and not lock.exists() else []), *([nix_file] if replaces else [])]
        aside = [*([aikit] if is_edited else []), *([nix_file] if replaces and had_flake and not is_ours else [])]
        with ExitStack() as undo:
            for place in places:
                _exchange(fresh / place.name, place)
                undo.callback(_exchange, place, fresh / place.name)
            for place in aside:
                backups.append(_set_aside(fresh / place.name, place))
                undo.callback(backups[-1].rename, fresh / place.name)
            undo.pop_all()
    return Written(
        tuple(sorted(place.name for place in places)), tuple(backups), (nix_file,) if had_flake and not replaces else ()
    )


def _is_sealed(nix_file: Path, known: Iterable[Mapping[str, str]]) -> bool:
    return any(flake.is_sealed("flake.nix", _bytes(nix_file), seals) for seals in known)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
    try:
        yield scratch
    finally:
        _remove(scratch)


def _remove(scratch: Path) -> None:
    """The seals first: what is left when this is broken off must not look edited."""
    with suppress(OSError):
        (scratch / flake.SEALS).unlink()
    shutil.rmtree(scratch, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Let two paths change places, in one step where the file system can: renameat2(2). The other need not be there."""
    if not os.path.lexists(other):
        one.rename(other)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    spare = one.with_name(f"{one.name}.spare")
    other.rename(spare)
    try:
        one.rename(other)
    except OSError:
        spare.rename(other)
        raise
    spare.rename(one)


def _set_aside(old: Path, path: Path) -> Path:
    names = (path.with_name(path.name + "~" * count) for count in itertools.count(1))
    return old.rename(next(name for name in names if not os.path.lexists(name)))


def differences(wanted: Files, folder: Path) -> Iterator[str]:
    """What of a flake's folder is not, byte for byte, what is wanted; a flake.lock has its say on revisions alone."""
    there = {
        path.relative_to(folder).as_posix()
        for path in (folder / AIKIT).rglob("*")
        if (path.is_symlink() or not path.is_dir()) and "__pycache__" not in path.parts
    }
    for name in sorted({*wanted.content, *there}):
        path = folder / name
        if name not in wanted.content:
            yield f"{path}: aikitfile and lock give no such file"
        elif not os.path.lexists(path):
            yield f"{path} is not there: run `aikit-nix gen`"
        elif path.is_symlink() or _bytes(path) != wanted.content[name]:
            mend = "it was edited, or `aikit-nix gen` was not run"
            if name == flake.DEBIAN_LOCK:
                mend = "other pins of Debian's packages than the shipped ones count where --debian-lock names them"
            yield f"{path} is not what aikitfile, lock and choices give: {mend}"
    lock = folder / "flake.lock"
    if lock.exists():
        origins = _origins(_bytes(lock))
        if origins is None or (wanted.lock and origins != _origins(wanted.lock)):
            yield f"{lock} takes nixpkgs from elsewhere than flake.nix says"
        # What `--nixpkgs` and `--input` name: an indirect one may be anything, a tarball's address lead to another
        for name, (said, locked) in (origins or {}).items():
            same = 1 if said[0] in ("tarball", "file") else None
            if said[0] != "indirect" and said[:same] != locked[:same]:
                yield f"{lock} takes {name} from elsewhere than it says itself"


def other_revisions(wanted: Files, folder: Path) -> Iterator[str]:
    """What flake.lock pins otherwise than a new flake's would be, where `differences` has nothing to say of it."""
    lock = folder / "flake.lock"
    if not (wanted.lock and lock.exists()):
        return
    there, own = (typed_json.decode(each, flake.FlakeLock).nodes for each in (_bytes(lock), wanted.lock))
    for name in own:
        here, ours = ([nodes[name].locked.get(each) for each in ("rev", "narHash")] for nodes in (there, own))
        if here != ours:
            yield f"{lock} has {name} at {here[0]}, {here[1]}, and a new flake at {ours[0]}, {ours[1]}"


def _origins(lock: bytes) -> dict[str, tuple[list[Any], list[Any]]] | None:
    """Where a flake.lock says that it takes each input from and where it does, whatever their revisions; None where it is none."""
    places = ("type", "owner", "repo", "url", "dir", "host", "path")
    try:
        nodes = typed_json.decode(lock, flake.FlakeLock).nodes
    except ValueError:
        return None
    return {
        name: ([node.original.get(each) for each in places], [node.locked.get(each) for each in places])
        for name, node in nodes.items()
    }


def _is_edited(folder: Path, seals: Mapping[str, str]) -> bool:
    expected = {path for path in seals if path.startswith(f"{AIKIT}/")}
    found = {
        path.relative_to(folder).as_posix()
        for path in (folder / AIKIT).rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
    } - {flake.SEALS}
    return found != expected or any(not flake.is_sealed(path, _bytes(folder / path), seals) for path in expected)


def _bytes(path: Path) -> bytes:
    """What may be a file of ours: no more of a larger one is read, and nothing of what is no file."""
    try:
        return files.read_bounded(path, _MAX_BYTES)
    except AikitError:
        return b""


# --- What Nix sees


def own_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder that are its flake's, by name, and what they hold; what else lies there is not Nix's business.

    Raises AikitError for a link, which leads to what is not the flake's, and for what is too large to be.
    """
    inside = (path for path in (folder / AIKIT).rglob("*") if "__pycache__" not in path.parts)
    for path in sorted([folder / "flake.nix", folder / "flake.lock", folder / AIKIT, *inside], key=str):
        if path.is_symlink():
            raise error(
                f"{path} is a link, and a flake of aikit-nix has none: put the file there, or run `aikit-nix gen`"
            )
        if path.exists() and not path.is_dir():
            yield path.relative_to(folder).as_posix(), files.read_bounded(path, _MAX_PLAN)


def copy(folder: Path, to: Path) -> dict[str, str]:
    """Copy the flake's files with their modes, and nothing else, into a new folder; their SHA-256 by their names.

    Raises AikitError.
    """
    digests = {}
    for name, content in own_files(folder):
        try:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(content)
            shutil.copymode(folder / name, to / name)
        except OSError as failed:
            raise files.cannot_write(to / name, failed) from None
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


@contextmanager
def staged(folder: Path) -> Iterator[nix.Flake]:
    """A flake as our commands hand it to Nix: a copy of its own files.

    Nix copies all of the folder that it is told of into its store, where everybody may read it. Inputs that it pins are
    pinned in the folder, too, where that can be written to. Raises AikitError for a flake that is behind its aikitfile.
    """
    refuse_stale(folder)
    with files.scratch() as scratch:
        to = scratch / "flake"
        pinned = copy(folder, to).get("flake.lock")
        # By its name where that goes: relative paths behind `--` count from the user's folder then
        yield nix.Flake(f"path:{to}") if nix.is_plain(to) else nix.Flake("path:.", to)
        lock = to / "flake.lock"
        if lock.exists() and hashlib.sha256(content := lock.read_bytes()).hexdigest() != pinned:
            with suppress(AikitError):
                files.write_atomic(folder / "flake.lock", content, 0o644)


def refuse_stale(folder: Path) -> None:
    """Raises AikitError where the aikitfile or its lock has changed since the flake in a folder was written."""
    for path, sha256 in made_from(folder):
        file = folder.resolve() / path
        if file.is_file() and hashlib.sha256(files.read_bounded(file, _MAX_BYTES)).hexdigest() != sha256:
            raise error(
                f"{os.path.normpath(folder / path)} has changed since this flake was written: run `aikit-nix gen`"
            )


def made_from(folder: Path) -> list[tuple[str, str]]:
    """What the flake in a folder was made from: paths relative to it, and their SHA-256; nothing where it does not say."""
    try:
        plan = typed_json.decode(files.read_bounded(folder / flake.PLAN, _MAX_PLAN), _Sources)
    except (AikitError, OSError, ValueError):
        return []
    return [(source.path, source.sha256) for source in plan.sources]


class _Sources(Struct):
    sources: tuple[SourceFile, ...]
