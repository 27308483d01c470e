"""A flake's folder: it holds the old flake or the new one, whatever fails; and git and Nix see it.

What changes at a `gen` is the folder aikit/, exchanged in one step, and flake.nix where it is ours. flake.lock is the
user's: it is written where there is none. A run that was killed in between leaves parts that a build refuses by name (see
nix/default.nix) and the next run puts right.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.base import files, process
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.write import AIKIT, Files

_TEMPORARY = ".aikit-nix-flake-"
_MAX_BYTES = 16 << 20  # of a file that may be ours
_MODEL_SUFFIXES = (".gguf", ".safetensors", ".bin")
_LARGE_BYTES = 50_000_000
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class Written:
    """What became of a folder: files and folders written, and set aside; `kept` are the user's own that were left."""

    written: tuple[str, ...]
    set_aside: tuple[Path, ...]
    kept: tuple[Path, ...]


def write(new: Files, folder: Path, *, force: bool = False) -> Written:
    """Write a flake into a folder.

    What was edited in aikit/ since it was written is set aside, as `aikit~`; an edited flake.nix is left as it is, and set
    aside with `force`. Raises AikitError, with nothing changed, where flake.nix or aikit/ is not ours at all and `force` is
    not set.
    """
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is no folder: name another one with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.alone(folder):
            _clean(folder)
            present = _Present.of(folder)
            foreign = present.foreign(folder)
            if foreign and not force:
                raise error(
                    f"{foreign} was not written by aikit-nix: name another folder with -o, or set it aside with --force",
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


def _is_edited(folder: Path, seals: Mapping[str, str]) -> bool:
    expected = {path for path in seals if path.startswith(f"{AIKIT}/")}
    found = {
        path.relative_to(folder).as_posix()
        for path in (folder / AIKIT).rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
    } - {f"{AIKIT}/seals.json"}
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
    set_aside = []
    if present.aikit and (present.aikit_is_edited or not present.aikit_is_ours):
        set_aside.append(_set_aside(fresh / AIKIT, folder / AIKIT))
    if replaces and present.flake and not present.flake_is_ours:
        set_aside.append(_set_aside(old / "flake.nix", nix_file))
    return Written(tuple(sorted(wrote)), tuple(set_aside), () if replaces else (nix_file,))


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


# --- What git and Nix see


def show_to_git(folder: Path, parts: Iterable[str]) -> tuple[Diagnostic, ...]:
    """In a git repository a flake sees only files that git knows: tell it of them, as `nix flake init` does.

    Returns a note that says so, or a warning where git could not do it.
    """
    if not git_root(folder):
        return ()
    try:
        unknown = [part for part in sorted(parts) if not _is_tracked(part, folder)]
        process.run(["git", "add", "--intent-to-add", "--force", "--", *sorted(parts)], cwd=folder)
    except AikitError as failed:
        text = f"in a git repository Nix sees only files that git knows: run `git add` ({failed})"
        return (Diagnostic(Severity.WARNING, "git-add", text),)
    if not unknown:
        return ()
    text = f"told git of {', '.join(unknown)} (git add --intent-to-add): Nix sees only files that git knows"
    return (Diagnostic(Severity.NOTE, "git-add", text),)


def _is_tracked(path: str | Path, folder: Path) -> bool:
    return process.succeeds(["git", "ls-files", "--error-unmatch", "--", path], cwd=folder)


def git_root(folder: Path) -> Path | None:
    """The git repository that a folder is in."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def copied_models(folder: Path, sources: Iterable[Path]) -> tuple[Diagnostic, ...]:
    """A warning for each model file that Nix would copy into the store together with the flake.

    Outside of git that is every file of the folder; inside, what git tracks. A symlink is copied as a link.
    """
    folder = folder.resolve()
    root = git_root(folder)
    base = root or folder
    if root and not shutil.which("git"):
        return ()  # `show_to_git` says so
    candidates = {path.absolute() for path in sources}
    candidates |= {path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES}
    large = sorted(
        path
        for path in candidates
        if path.is_relative_to(base)
        and path.is_file()
        and not path.is_symlink()
        and path.stat().st_size > _LARGE_BYTES
        and (root is None or _is_tracked(path, base))
    )
    mend = (
        "keep it out of git"
        if root
        else "write the flake elsewhere with -o, or keep the model elsewhere behind a symlink"
    )
    return tuple(
        Diagnostic(
            Severity.WARNING,
            "model-in-flake",
            f"{path} ({path.stat().st_size / 1e9:.1f} GB) lies in the flake's source, "
            f"which Nix copies at each build: {mend}",
        )
        for path in large
    )
