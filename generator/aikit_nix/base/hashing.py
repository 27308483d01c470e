"""All hashes of a file in one pass: SHA-256, BLAKE3, and the digest of the image layer that it will be.

The libraries let go of the interpreter while they hash, so each hash has a thread of its own.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.redact import shown

BLOCK = 1 << 20  # bytes that are read and hashed at a time

_WAITING = 4  # blocks that a slow hash may lie behind


@dataclass(frozen=True)
class Digests:
    """What is known of a file whose every byte was seen; digests in hex, sizes in bytes."""

    size: int
    sha256: str
    blake3: str
    layer: str | None = None  # SHA-256 of the uncompressed image layer; None where no path in the image was given


@dataclass(frozen=True)
class Frame:
    """What stands around the content in an image layer: see docs/model-layer.md."""

    header: bytes
    trailer: bytes


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


class Hasher:
    """Takes a file's bytes in order, whatever their source, and gives its Digests."""

    def __init__(self, layer: Frame | None = None) -> None:
        import blake3

        self.size = 0
        self._sha256 = HashThread(hashlib.sha256())
        self._blake3 = HashThread(blake3.blake3())
        self._layer = HashThread(hashlib.sha256(layer.header), layer.trailer) if layer else None

    def update(self, block: bytes) -> None:
        """More of the file. Returns at once, or waits while a hash lies too far behind; the block must not change."""
        self.size += len(block)
        for worker in self._workers():
            worker.update(block)

    def digests(self) -> Digests:
        """Of all that was taken; nothing more can be."""
        layer = self._layer.end() if self._layer else None
        return Digests(self.size, self._sha256.end(), self._blake3.end(), layer)

    def close(self) -> None:
        """Let the threads go; nothing happens after `digests`."""
        for worker in self._workers():
            worker.end()

    def _workers(self) -> list[HashThread]:
        return [worker for worker in (self._sha256, self._blake3, self._layer) if worker]


class HashThread:
    """One hash in a thread of its own, which `end` ends."""

    def __init__(self, state: _Hash, trailer: bytes = b"") -> None:
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._state = state
        self._trailer = trailer
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def update(self, block: bytes) -> None:
        """More to hash. Returns at once, or waits while the hash lies too far behind; the block must not change."""
        self._blocks.put(block)

    def end(self) -> str:
        """The digest in hex, of all that was taken."""
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()
        return self._state.hexdigest()

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._state.update(block)
        self._state.update(self._trailer)


def hash_file(
    path: Path,
    layer_of: Callable[[int], Frame] | None = None,
    take: Callable[[bytes], object] = lambda _: None,
) -> Digests:
    """All hashes of a regular file.

    `layer_of` gives the layer's frame for a size in bytes; `take` gets each block that was read. Raises AikitError
    for what is no regular file, cannot be read, or changes meanwhile.
    """
    try:
        stream = files.open_regular(path)
    except (OSError, ValueError) as problem:
        raise _unreadable(path, problem) from None
    with stream:
        before = os.fstat(stream.fileno())
        hasher = Hasher(layer_of(before.st_size) if layer_of else None)
        try:
            for block in _blocks(path, stream.fileno()):
                hasher.update(block)
                take(block)
                if hasher.size > before.st_size:
                    break
            if hasher.size != before.st_size or identity(os.fstat(stream.fileno())) != identity(before):
                raise error(
                    f"{shown(str(path))} changed while it was read: try again when it is at rest", code="file-changed"
                )
            return hasher.digests()
        finally:
            hasher.close()


def _blocks(path: Path, descriptor: int) -> Iterator[bytes]:
    try:
        while block := os.read(descriptor, BLOCK):
            yield block
    except OSError as problem:
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: OSError | ValueError) -> AikitError:
    reason = files.reason(problem) if isinstance(problem, OSError) else problem
    return error(f"{shown(str(path))} cannot be read: {reason}", code="file-read")


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes with a file's content: device, inode, size and both times."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
