"""The one reader and the one writer of files that fit into memory: only regular files, bounded; all or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, error

TEMPORARY = ".aikit-nix-file-"  # how the names of files begin that are not written whole yet
SCRATCH = "aikit-nix-scratch-"  # how the names of folders begin that are needed for a while
_YOUNG = 60  # seconds, in which a new folder is locked for sure
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BufferedReader:
    """A regular file, opened for reading. Raises OSError, also for what is none: its `strerror` says what it is.

    A pipe is not waited for, and a device is not opened: some do something then.
    """
    _refuse_other(path.stat(), path)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _refuse_other(os.fstat(handle), path)  # it may be another one by now
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_part(path: Path, start: int, count: int, block: int) -> Iterator[bytes]:
    """`count` bytes of a regular file from `start` on, at most `block` at a time; fewer where it ends. Raises AikitError."""
    try:
        with open_regular(path) as stream:
            stream.seek(start)
            while count and (data := stream.read(min(block, count))):
                count -= len(data)
                yield data
    except OSError as failed:
        raise error(f"cannot read {path}: {reason(failed)}", code="unreadable") from None


def punch(descriptor: int, size: int) -> None:
    """Give the first `size` bytes of a file back to the file system, where that is possible: they read as zeros then."""
    import ctypes

    keep_size_and_punch_hole = 0x01 | 0x02  # linux/falloc.h
    allocate = ctypes.CDLL(None).fallocate64
    allocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    allocate(descriptor, keep_size_and_punch_hole, 0, size)


def _refuse_other(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_one, kind in _KINDS if is_one(status.st_mode)), "no file")
        raise OSError(None, f"it is {kind}, not a regular file", str(path))


def read_bounded(path: Path, limit: int, hint: str = "") -> bytes:
    """The bytes of a file that has at most `limit` of them; no more are ever read.

    Raises AikitError; `hint` says what to do where there is no such file.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        raise error(f"cannot read {path}: no such file or directory{hint}", code="unreadable") from None
    except OSError as failed:
        raise error(f"cannot read {path}: {reason(failed)}", code="unreadable") from None
    except ValueError:
        raise error(f"cannot read {str(path)!r}: that is no file name", code="unreadable") from None
    if len(data) > limit:
        raise error(f"cannot read {path}: it has more than {limit} bytes", code="too-large")
    return data


def write_atomic(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file so that it holds the old bytes or the new ones, whatever fails; a symlink's target is written.

    Its mode is `mode`, or what it was, or what new files have here. Raises AikitError, which names the file and the reason.
    """
    try:
        target = Path(os.path.realpath(path))
        before = _status(target)
        if before:
            _refuse_other(before, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        owner = (before.st_uid, before.st_gid) if before else None
        write_whole(target, data, _mode(before) if mode is None else mode, owner)
    except OSError as failed:
        raise cannot_write(path, failed) from None
    except ValueError:
        raise error(f"cannot write {str(path)!r}: that is no file name", code="unwritable") from None


def write_whole(target: Path, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """The file has these bytes, or what it had before, even if the power fails. Raises OSError."""
    _remove_left(target.parent, TEMPORARY)
    handle, temporary = _temporary(target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            if owner and owner != (os.geteuid(), os.getegid()):
                with contextlib.suppress(PermissionError):
                    os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            os.fsync(handle)
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def _temporary(folder: Path) -> tuple[int, Path]:
    """A new file, locked for as long as it is open: so others can tell it from what a killed run left."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # somebody took it for left between the two


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove what killed runs left behind, files and folders: nobody has them locked."""
    for left in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(handle)
                if stat.S_ISREG(status.st_mode):
                    left.unlink()
                elif stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > _YOUNG:
                    shutil.rmtree(left)
            finally:
                os.close(handle)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a while, where the system has such; it is locked, so that others can tell it from what a killed run left."""
    _remove_left(Path(tempfile.gettempdir()), SCRATCH)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """What was renamed in a folder stays so if the power fails. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """A folder and all above it, if they are not there. Raises AikitError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise cannot_write(folder, failed) from None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other run writes into the folder. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"waiting for another aikit-nix that writes to {folder}", err=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Where this program keeps what it can do without."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "aikit-nix"


def home() -> Path:
    """The user's home folder. Raises AikitError where there is none, as for a number without a name in a container."""
    try:
        return Path.home()
    except RuntimeError:
        raise error("this user has no home folder: set HOME to a folder that may be written", code="no-home") from None


def cannot_write(path: Path | str, failed: OSError) -> AikitError:
    """The error for a file or folder that cannot be written."""
    return error(f"cannot write {path}: {reason(failed)}", code="unwritable")


def reason(failed: OSError) -> str:
    """Why something with a file failed, for the end of a message."""
    return (failed.strerror or str(failed) or type(failed).__name__).lower()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _mode(before: os.stat_result | None) -> int:
    if before:
        return stat.S_IMODE(before.st_mode)
    umask = os.umask(0)  # there is no other way to ask
    os.umask(umask)
    return 0o666 & ~umask
