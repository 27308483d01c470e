"""A blob before it is sent: its digest, and where its bytes lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aikit_nix.base import files
from aikit_nix.base.errors import error
from aikit_nix.base.hashing import HashThread
from aikit_nix.registry.reference import digest_of

_BLOCK = 512 << 10  # bytes that are read, hashed and sent at a time


class Part(Protocol):
    """Bytes from elsewhere, a model at its origin say, which can be read from any of them on. Methods raise AikitError."""

    @property
    def size(self) -> int: ...

    def blocks(self, start: int, count: int) -> Iterator[bytes]: ...

    def check(self) -> None:
        """Raises where the bytes, each of which was read, are not the right ones."""


@dataclass(frozen=True)
class Blob:
    """Bytes with a digest, and where they are: parts one after the other; None where they are not here.

    `digest` is empty where only the bytes will tell: `send` gives it. `what` is the blob for people, `file` the model that
    it is made of, wherever that should be.
    """

    digest: str
    size: int  # bytes
    what: str
    parts: tuple[bytes | Path | Part, ...] | None
    file: Path | None = None

    @property
    def where(self) -> str:
        """The blob for people who have to look after it."""
        return f"{self.what} ({self.file})" if self.file else self.what

    @classmethod
    def of(cls, data: bytes, what: str) -> Blob:
        return cls(digest_of(data), len(data), what, (data,))


class Content:
    """A blob's bytes from any offset on; each is hashed once, while the one before it is sent.

    The last block is only given when all of them have the blob's digest: what is wrong never becomes a whole blob.
    """

    def __init__(self, blob: Blob) -> None:
        if blob.parts is None:
            raise error(f"{blob.where} is not on this machine", code="missing-blob")
        self.blob = blob
        self.digest = blob.digest
        self._parts = blob.parts
        self._hash = HashThread(hashlib.sha256())
        self.hashed = 0  # bytes, from the first on

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self._hash.end()

    def blocks(self, start: int, count: int, on_progress: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
        """The bytes from `start` on; `on_progress` hears how many were taken. Raises AikitError: see the class."""
        position = start
        for block in self._read(start, count):
            self._hash_new(block, position)
            position += len(block)
            if position == self.blob.size:
                self._check()
            yield block
            on_progress(len(block))
        if position != start + count:
            self._refuse(f"ends after {position:,} of {self.blob.size:,} bytes")

    def _read(self, start: int, count: int) -> Iterator[bytes]:
        at = 0
        for part in self._parts:
            size = self._size(part)
            skipped = min(max(start - at, 0), size)
            at += size
            left = min(size - skipped, count)
            count -= left
            if not left:
                continue
            if isinstance(part, bytes):
                yield part[skipped : skipped + left]
            elif isinstance(part, Path):
                yield from files.read_part(part, skipped, left, _BLOCK)
            else:
                yield from part.blocks(skipped, left)

    def _size(self, part: bytes | Path | Part) -> int:
        if isinstance(part, bytes):
            return len(part)
        try:
            return part.stat().st_size if isinstance(part, Path) else part.size
        except OSError as failed:
            raise error(f"cannot read {part}: {files.reason(failed)}", code="unreadable") from None

    def _hash_new(self, block: bytes, position: int) -> None:
        new = block[max(self.hashed - position, 0) :]
        if not new:
            return
        self._hash.update(new)
        self.hashed += len(new)

    def _check(self) -> None:
        if self.hashed < self.blob.size:
            return
        for part in self._parts:
            if not isinstance(part, bytes | Path):
                part.check()
        found = f"sha256:{self._hash.end()}"
        self.digest = self.digest or found
        if found != self.digest:
            self._refuse(f"gives {found}, and the image has {self.digest}")

    def _refuse(self, why: str) -> None:
        raise error(
            f"{self.blob.where} {why}: it is damaged (`nix-store --verify-path` tells), or another one than was pinned",
            code="digest-mismatch",
        )
