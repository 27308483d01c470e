"""A file on its way into the Nix store while it is read: Nix's worker protocol, spoken to `nix-daemon --stdio`.

So Nix writes and hashes a file while we hash it, and has only to read it once more, for its NAR's hash, when the last
byte is there. `nix-store --add-fixed` wants the whole file first, reads it three times and hashes it four times; `nix
copy` from a binary cache on the disk reads it twice, but wants its NAR's hash first; `nix-store --import` and `nix store
add-file` keep it in memory (Nix 2.8).

Source: src/libstore/daemon.cc and worker-protocol*.cc of Nix 2.8 to 2.34, operation AddToStore as of protocol 1.25.
"""

from __future__ import annotations

import fcntl
import os
import queue
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from aikit_nix.base import process
from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import BLOCK

_MAGIC = (0x6E697863, 0x6478696F)  # a client's, a daemon's
_VERSION = (1 << 8) | 32  # what we speak: old enough for every daemon, and before the answers grew
_ADD_TO_STORE = 7
_LAST, _NEXT, _WRITE = 0x616C7473, 0x6F6C6D67, 0x64617416
_START, _STOP, _RESULT = 0x53545254, 0x53544F50, 0x52534C54
_PIPE = 1 << 20  # bytes
_MADE = Path("/nix/var/nix/gcroots/profiles")  # of a new store's folders the last
_WAITING = 4  # blocks that Nix may lie behind
_LONGEST = 1 << 20  # bytes of a text in an answer
# Nix takes a connection that ends for the end of the file, and would keep what came so far. So when we are gone, killed
# even, this follows: the rest of a frame, and then a length that is no number. It lives until its stdin ends.
_GUARDIAN = f"trap '' HUP INT TERM; cat; head -c {BLOCK + 16} /dev/zero | tr '\\0' '\\377'"


class _RefusedError(Exception):
    """Nix says no, or what it says makes no sense."""


class StoreStream:
    """Takes a file's bytes in order and hands them to Nix; whatever goes wrong, `finish` says that it did not work."""

    def __init__(self, name: str) -> None:
        """`name` is the file's in the store."""
        if not _MADE.is_symlink():  # of two programs that are a new store's first, one fails at making its folders
            with suppress(AikitError):
                process.succeeds(["nix-store", "--init"])
        self._name = name
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._aborted = False
        self._ended = False
        self.failed = False  # Nix takes nothing more
        self._path: Path | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """More of the file. Returns at once, or waits while Nix lies too far behind; the block must not change."""
        self._blocks.put(block)

    def finish(self) -> Path | None:
        """The store path, valid from now on; None where Nix did not take the file."""
        self._end()
        return self._path

    def abort(self) -> None:
        """Nothing of the file stays in the store; nothing happens after `finish`."""
        self._aborted = True
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()

    def _work(self) -> None:
        with suppress(AikitError, OSError):
            self._path = self._with_daemon()
        self.failed = self._path is None
        while self._next() is not None:
            pass  # nobody wants them, and whoever writes must not wait

    def _with_daemon(self) -> Path | None:
        numbers = os.pipe()
        source, to = os.fdopen(numbers[0], "rb", 0), os.fdopen(numbers[1], "wb", 0)
        # The order in which the ends are closed matters: who holds one too long lets another wait forever.
        with source, to, process.start(["sh", "-c", _GUARDIAN], stdin=subprocess.PIPE, stdout=to) as guardian, source:
            argv = ["nix-daemon", "--stdio"]
            with process.start(argv, stdin=source, stderr=subprocess.DEVNULL) as daemon:
                source.close()
                assert daemon.stdout and guardian.stdin  # noqa: S101 (both are pipes)
                try:
                    return self._add(_Connection(to, daemon.stdout))
                except (OSError, _RefusedError):
                    return None
                finally:
                    to.close()
                    guardian.stdin.close()

    def _next(self) -> bytes | None:
        if self._ended or (block := self._blocks.get()) is None:
            self._ended = True
            return None
        return block

    def _add(self, nix: _Connection) -> Path:
        nix.greet()
        nix.send(_number(_ADD_TO_STORE), _text(self._name), _text("fixed:sha256"), _number(0), _number(0))
        while (block := self._next()) is not None:
            for at in range(0, len(block), BLOCK):
                frame = memoryview(block)[at : at + BLOCK]
                nix.send(_number(len(frame)), frame)
        if self._aborted:
            raise _RefusedError
        nix.send(_number(0))
        nix.until_done()
        return Path(nix.text())


class _Connection:
    """Numbers and texts, to and from the daemon."""

    def __init__(self, to: IO[bytes], source: IO[bytes]) -> None:
        self._to = to.fileno()
        self._source = source
        fcntl.fcntl(self._to, fcntl.F_SETPIPE_SZ, _PIPE)

    def greet(self) -> None:
        self.send(_number(_MAGIC[0]))
        if self.number() != _MAGIC[1] or not _VERSION <= self.number() < 2 << 8:
            raise _RefusedError
        # No CPU affinity, no reserved space.
        self.send(_number(_VERSION), _number(0), _number(0))
        self.until_done()

    def send(self, *parts: bytes | memoryview) -> None:
        left = [memoryview(part) for part in parts]
        while left:
            sent = os.writev(self._to, left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if left:
                left[0] = left[0][sent:]

    def number(self) -> int:
        data = self._read(8)
        return int.from_bytes(data, "little")

    def text(self) -> str:
        size = self.number()
        if size > _LONGEST:
            raise _RefusedError
        return self._read(size + -size % 8)[:size].decode(errors="replace")

    def until_done(self) -> None:
        """Read what the daemon logs while it works. Raises _RefusedError where it fails."""
        while (kind := self.number()) != _LAST:
            if kind in (_NEXT, _WRITE):
                self.text()
            elif kind == _START:
                self._numbers(3)
                self.text()
                self._fields()
                self.number()
            elif kind == _STOP:
                self.number()
            elif kind == _RESULT:
                self._numbers(2)
                self._fields()
            else:  # an error, or what we do not know
                raise _RefusedError

    def _fields(self) -> None:
        for _ in range(min(self.number(), _LONGEST)):
            if self.number() == 0:
                self.number()
            else:
                self.text()

    def _numbers(self, count: int) -> None:
        for _ in range(count):
            self.number()

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise _RefusedError
        return data


def _number(value: int) -> bytes:
    return struct.pack("<Q", value)


def _text(value: str) -> bytes:
    data = value.encode()
    return _number(len(data)) + data + bytes(-len(data) % 8)
