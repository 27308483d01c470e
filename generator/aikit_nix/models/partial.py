"""The file of a download, in a folder of our own: whoever has it is alone with it; and whether a disk has room for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from aikit_nix.base import console
from aikit_nix.base.errors import error
from aikit_nix.base.hashing import BLOCK

_RESERVE = 64 << 20  # bytes left free on the disk


class Partial:
    """The file, locked: no other process, and no other thread, has it at the same time. Nothing is left of an empty one.

    Raises OSError where the folder or the disk does not do, AikitError for what is no file.
    """

    def __init__(self, place: Path, waiting: Callable[[], object] = lambda: None) -> None:
        """`waiting` is called again and again while another process has the file; it may raise."""
        self.place = place
        self.size = 0
        self._waiting = waiting

    def __enter__(self) -> Partial:
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = self._locked()
        self.size = os.fstat(self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        if self.size == 0:
            self.discard()
        os.close(self._descriptor)

    def cut(self, size: int) -> None:
        """Forget the bytes from here on."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def blocks(self) -> Iterator[bytes]:
        """The bytes that are there."""
        at = 0
        while block := os.pread(self._descriptor, min(BLOCK, self.size - at), at):
            at += len(block)
            yield block

    def append(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            written = os.pwrite(self._descriptor, view, self.size)
            self.size += written
            view = view[written:]

    def discard(self) -> None:
        """Remove it, unless it is another's already."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self.place.stat()):
                self.place.unlink()

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            descriptor = os.open(self.place, flags, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise error(f"{self.place} is not a file: move it away", code="file-kind")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(self.place)):  # noqa: PTH116
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            self._waiting()
            time.sleep(0.2)


def check_space(wanted: Iterable[tuple[Path, int]]) -> None:
    """Raises AikitError where a disk has no room for the files (each with the bytes that it will have) on it."""
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for file, size in wanted:
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        needed[device] = needed.get(device, 0) + max(0, size - (file.stat().st_size if file.is_file() else 0))
    for device, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if needed[device] and needed[device] + _RESERVE > free:
            raise error(
                f"{folder} has {console.size(free)} free, and {console.size(needed[device])} are to come: "
                "make room, or name another folder",
                code="disk-full",
            )
