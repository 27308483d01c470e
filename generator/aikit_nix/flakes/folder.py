"""A flake's folder: it holds the old flake or the new one, whatever fails; and what of it Nix sees.

What changes at a `gen` is the folder aikit/, exchanged in one step, and flake.nix where it is ours. flake.lock is the
user's: it is written where there is none. A run that was killed in between leaves parts that a build refuses by name (see
nix/default.nix) and the next run puts right.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.base import files, strict_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.flakes import write as flake
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
            _clean(folder)
            present = _Present.of(folder)
            foreign = present.foreign(folder)
            if foreign and not force:
                raise error(
                    f"{foreign} was not written by aikit-nix: name another folder with --flake, or set it aside with --force",
                    code="foreign-files",
                )
            with _temporary(folder) as scratch:
                return _write(new, folder, scratch, present, force=force)
    except OSError as failed:
        raise error(f"cannot write the flake to {folder}: {files.reason(failed)} ({failed.filename})") from None


@dataclass(frozen=True)
class _Present:
    """What a folder holds: whether there are parts of a flake, and whether they are as they were written."""

    aikit: bool
    aikit_is_ours: bool
    aikit_is_edited: bool
    flake: bool
    flake_is_ours: bool

    @classmethod
    def of(cls, folder: Path) -> _Present:
        seals = flake.read_seals(folder)
        aikit, nix_file = folder / AIKIT, folder / "flake.nix"
        edited = bool(seals) and _is_edited(folder, seals)
        ours = nix_file.is_file() and flake.is_sealed("flake.nix", _bytes(nix_file), seals)
        return cls(os.path.lexists(aikit), bool(seals), edited, os.path.lexists(nix_file), ours)

    def foreign(self, folder: Path) -> Path | None:
        """What there is of others where no flake of ours is."""
        if self.aikit and not self.aikit_is_ours:
            return folder / AIKIT
        return folder / "flake.nix" if self.flake and not self.aikit else None


def differences(wanted: Files, folder: Path) -> Iterator[str]:
    """What of a flake's folder is not, byte for byte, what is wanted; a flake.lock has its say on revisions alone."""
    there = {path.relative_to(folder).as_posix() for path in (folder / AIKIT).rglob("*") if not path.is_dir()}
    for name in sorted({*wanted.content, *(name for name in there if "__pycache__" not in name)}):
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
    if wanted.lock and lock.exists() and _origins(_bytes(lock)) != _origins(wanted.lock):
        yield f"{lock} takes nixpkgs from elsewhere than flake.nix says"


def _origins(lock: bytes) -> object:
    """Where a flake.lock takes its inputs from, whatever their revisions."""
    try:
        nodes = strict_json.parse(lock)["nodes"]
        places = ("type", "owner", "repo", "url", "dir", "host")
        return {name: [node.get("locked", {}).get(place) for place in places] for name, node in nodes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


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


def _write(new: Files, folder: Path, scratch: Path, present: _Present, *, force: bool) -> Written:
    fresh, old = scratch / "new", scratch / "old"
    old.mkdir()
    for path, content in new.content.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    nix_file = folder / "flake.nix"
    replaces = not present.flake or present.flake_is_ours or force or not present.aikit
    if present.flake_is_ours:
        # Until flake.nix is exchanged too: a run that ends in between must know it for ours again
        (fresh / flake.SEALS).write_bytes(flake.with_former(new.content[flake.SEALS], _bytes(nix_file)))
    with _undone_on_failure() as undo:
        if present.aikit:
            _exchange(fresh / AIKIT, folder / AIKIT)
            undo.append(lambda: _exchange(fresh / AIKIT, folder / AIKIT))
        else:
            (fresh / AIKIT).rename(folder / AIKIT)
            undo.append(lambda: (folder / AIKIT).rename(fresh / AIKIT))
        wrote = [AIKIT]
        if new.lock and not (folder / "flake.lock").exists():
            (fresh / "flake.lock").write_bytes(new.lock)
            (fresh / "flake.lock").rename(folder / "flake.lock")
            undo.append(lambda: (folder / "flake.lock").unlink())
            wrote.append("flake.lock")
        if replaces:
            if present.flake:
                os.link(nix_file, old / "flake.nix", follow_symlinks=False)
                undo.append(lambda: (old / "flake.nix").replace(nix_file))
            (fresh / "flake.nix").replace(nix_file)
            wrote.append("flake.nix")
        if present.flake_is_ours:
            (fresh / "seals.json").write_bytes(new.content[flake.SEALS])
            (fresh / "seals.json").replace(folder / flake.SEALS)
    backups = []
    if present.aikit and (present.aikit_is_edited or not present.aikit_is_ours):
        backups.append(_set_aside(fresh / AIKIT, folder / AIKIT))
    if replaces and present.flake and not present.flake_is_ours:
        backups.append(_set_aside(old / "flake.nix", nix_file))
    return Written(tuple(sorted(wrote)), tuple(backups), () if replaces else (nix_file,))


@contextmanager
def _undone_on_failure() -> Iterator[list[Callable[[], object]]]:
    """Steps that are undone, the last first, when one of them fails."""
    done: list[Callable[[], object]] = []
    try:
        yield done
    except BaseException:
        for step in reversed(done):
            with suppress(OSError):
                step()
        raise


def _exchange(one: Path, other: Path) -> None:
    """Let two paths change places, in one step where the file system can: renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    spare = one.with_name(f"{one.name}.spare")
    one.rename(spare)
    try:
        other.rename(one)
        try:
            spare.rename(other)
        except OSError:
            one.rename(other)
            raise
    except OSError:
        spare.rename(one)
        raise


def _set_aside(old: Path, path: Path) -> Path:
    names = (path.with_name(path.name + "~" * count) for count in itertools.count(1))
    return old.rename(next(name for name in names if not os.path.lexists(name)))


def _clean(folder: Path) -> None:
    """Remove what killed runs left."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
        yield nix.Flake("path:.", to)
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
        sources = json.loads(files.read_bounded(folder / flake.PLAN, _MAX_PLAN))["sources"]
        return [(str(source["path"]), str(source["sha256"])) for source in sources]
    except (AikitError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
