"""A file or a folder beside the aikitfile."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from aikit_nix.base.errors import RefusedError
from aikit_nix.sources.names import file_name, relative_path, shards, too_long

_MOST_FILES = 1000


@dataclass(frozen=True)
class Local:
    """A path relative to the aikitfile. `file` is the base name in the image; of a folder, with all that is in it."""

    text: str
    path: str
    file: str


def read(text: str) -> Local:
    """Understand a path. Raises RefusedError."""
    if text.startswith("/"):
        raise RefusedError("is an absolute path, which AIKit refused too: give a path relative to the aikitfile")
    if text.startswith("~/"):
        raise RefusedError("begins with `~`, which no shell expands here: give a path relative to the aikitfile")
    if ".." in text.split("/"):
        raise RefusedError(
            "leaves the aikitfile's folder, beyond which AIKit saw nothing: move or link the file into it"
        )
    if problem := too_long(text):
        raise RefusedError(problem)
    path = posixpath.normpath(text)
    if path == ".":
        raise RefusedError("is the aikitfile's own folder: name a file or a folder in it")
    *_, file = map(file_name, path.split("/"))  # a folder's name may be no longer than a file's
    return Local(text, path, file)


def files(source: Local, folder: Path, destination: str) -> list[tuple[str, Path]]:
    """The files that a source stands for, as (path in the image, file on the disk), below the aikitfile's `folder`.

    A folder stands for all files in it, the first shard of a GGUF for all its shards. Raises RefusedError where one is not
    there or no regular file.
    """
    there = folder / source.path
    if os.path.isdir(there):  # noqa: PTH112 (unlike Path.is_dir, False where the folder above may not be entered)
        found = sorted(walk(there, source.path))
        if not found:
            raise RefusedError("is an empty folder")
        return [(posixpath.join(destination, name), there / name) for name in found]
    names = shards(posixpath.basename(source.path))
    for name in names:
        _require_file(there.with_name(name), posixpath.join(posixpath.dirname(source.path), name))
    return [(posixpath.join(posixpath.dirname(destination), name), there.with_name(name)) for name in names]


def place(source: Local, folder: Path, destination: str, path: str) -> Path:
    """Where the file that lands on `path` lies on the disk: the source itself, a file of the folder, or another shard."""
    there = folder / source.path
    if path.startswith(destination + "/"):
        return there / path.removeprefix(destination + "/")
    return there.with_name(posixpath.basename(path))


def outside(file: Path, folder: Path) -> Path | None:
    """Where a file really is, if links lead out of the aikitfile's `folder`; None where they do not."""
    target = file.resolve()
    return None if target.is_relative_to(folder.resolve()) else target


def private(target: Path, folder: Path) -> Path | None:
    """What keeps others from a file outside of the aikitfile's `folder`: its own mode, or that of a folder above it that is
    not above the aikitfile too; None where everybody may read it.
    """
    if not target.stat().st_mode & stat.S_IROTH:
        return target
    shared = {folder.resolve(), *folder.resolve().parents}
    return next(
        (each for each in target.parents if each not in shared and not each.stat().st_mode & stat.S_IXOTH), None
    )


def walk(folder: Path, shown: str) -> Iterator[str]:
    """The paths of all files below a folder; symlinks to folders are not followed. Raises RefusedError."""
    count = 0
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = (Path(parent) / name).relative_to(folder).as_posix()
            _require_file(folder / path, f"{shown}/{path}")
            count += 1
            if count > _MOST_FILES:
                raise RefusedError(f"is a folder of more than {_MOST_FILES} files: name the one that is the model's")
            yield relative_path(path)


def _require_file(file: Path, shown: str) -> None:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        hint = "its target is missing" if file.is_symlink() else "put the file there"
        raise RefusedError(f"does not exist: {hint} ({shown}, from the aikitfile's folder)") from None
    except OSError as failed:
        _refuse(failed)
    if not stat.S_ISREG(mode):
        raise RefusedError(f"is no regular file ({shown})")


def _refuse(failed: OSError) -> NoReturn:
    raise RefusedError(f"cannot be read: {(failed.strerror or str(failed)).lower()}") from None
