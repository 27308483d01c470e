"""A file that is being downloaded: `X.part` and `X.state` beside the place X where it goes when it is whole.

The bytes of `X.part` came from the version of the file that the state names. After a power failure some may be missing:
where a hash is known it decides, else they are believed only while the machine runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aikit_nix.base import console, files
from aikit_nix.base.errors import error
from aikit_nix.base.hashing import BLOCK

_SMALL = 4 << 20  # bytes
_RESERVE = 64 << 20  # bytes left free on the disk


@dataclass(frozen=True)
class State:
    """Which version of which file the bytes belong to. No address: it may hold a secret."""

    address: str  # SHA-256 of the address in hex
    validator: str  # a strong ETag, or Last-Modified; empty where the server gives neither
    size: int | None
    boot: str = ""  # which start of the machine wrote the state


class Partial:
    """The partial file, locked: no other process, and no other thread, has it at the same time.

    Raises OSError where the folder or the disk does not do, AikitError for what is no file.
    """

    def __init__(self, place: Path, waiting: Callable[[], object] = lambda: None) -> None:
        """`waiting` is called again and again while another process has the file; it may raise."""
        self.place = place
        self.size = 0
        self.state: State | None = None
        self._part = place.with_name(f"{place.name}.part")
        self._note = place.with_name(f"{place.name}.state")
        self._waiting = waiting
        self._finished = False

    def __enter__(self) -> Partial:
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = self._locked()
        self.size = os.fstat(self._descriptor).st_size
        self.state = self._read_state()
        return self

    def __exit__(self, *_: object) -> None:
        if self.size == 0 or self._finished:  # it is there for its lock alone, unless it is another's already
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), self._part.stat()):
                    self._part.unlink()
        os.close(self._descriptor)

    def is_whole(self) -> bool:
        """Whether the file lies at its place already."""
        return self.place.is_file() and not self.place.is_symlink()

    def reopen(self) -> None:
        """Take a whole file back as the partial one: what it is has to be asked again."""
        if self.size == 0 and self.state:
            os.replace(self.place, self._part)  # noqa: PTH105
            os.close(self._descriptor)
            self._descriptor = self._locked()
            self.size = os.fstat(self._descriptor).st_size

    def known_good(self, *, checked: bool) -> int:
        """How many of the bytes that are there can be gone on with; `checked` is whether a hash will tell at the end."""
        return self.size if self.state and (checked or (self.state.boot and self.state.boot == _boot())) else 0

    def begin(self, state: State) -> None:
        """Begin with nothing: a new version of the file. A small one is not worth a state: it is fetched again."""
        self.cut(0)
        # A run that was killed may have left another version there, which the new state would vouch for
        self.place.unlink(missing_ok=True)
        if state.size is None or state.size >= _SMALL:
            self._write_state(replace(state, boot=_boot()))
        else:
            self._note.unlink(missing_ok=True)
            self.state = None

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

    def finish(self) -> None:
        """Put the whole file at its place. The state stays until `discard`, so that the file can be asked for again."""
        os.fchmod(self._descriptor, 0o644)
        # Beside its place it stays where it is locked, until nobody needs to be alone with it.
        spare = self._part.with_name(f"{self._part.name}~")
        spare.unlink(missing_ok=True)
        try:
            os.link(self._part, spare)
        except OSError:  # a file system without hard links
            spare = self._part
        os.replace(spare, self.place)  # noqa: PTH105
        self._finished = True

    def discard(self) -> None:
        """Throw away all that is there."""
        self.cut(0)
        discard(self.place)
        self.state = None

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            descriptor = os.open(self._part, flags, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise error(f"{self._part} is not a file: move it away", code="file-kind")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(self._part)):  # noqa: PTH116
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            self._waiting()
            time.sleep(0.2)

    def _read_state(self) -> State | None:
        try:
            found = State(**json.loads(self._note.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        sound = all(isinstance(text, str) for text in (found.address, found.validator, found.boot))
        return found if sound and (found.size is None or (type(found.size) is int and found.size >= 0)) else None

    def _write_state(self, state: State) -> None:
        files.write_whole(self._note, json.dumps(asdict(state)).encode(), mode=0o600)
        self.state = state


def discard(place: Path) -> None:
    """Throw away a downloaded file and what is known of it."""
    for name in (place.name, f"{place.name}.part", f"{place.name}.part~", f"{place.name}.state"):
        place.with_name(name).unlink(missing_ok=True)


def forget(place: Path) -> None:
    """Forget which version of a file a whole one is: without a hash it is not believed any more."""
    place.with_name(f"{place.name}.state").unlink(missing_ok=True)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def check_space(wanted: Iterable[tuple[Path, int]]) -> None:
    """Raises AikitError where a disk has no room for the files (each with the bytes that it will have) on it."""
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for file, size in wanted:
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        there = sum(_blocks(file.with_name(file.name + end)) for end in ("", ".part"))
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        needed[device] = needed.get(device, 0) + max(0, size - there)
    for device, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if needed[device] and needed[device] + _RESERVE > free:
            raise error(
                f"{folder} has {console.size(free)} free, and {console.size(needed[device])} are to come: "
                "make room, or name another folder",
                code="disk-full",
            )


def _blocks(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
