"""The head of a file at its origin: how large the file is, and whether it is what its name says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aikit_nix.sources import judge

if TYPE_CHECKING:
    from aikit_nix.http.client import Client
    from aikit_nix.sources import gguf

# The chat template stands behind the vocabulary: 5 to 10 MB into today's files, 16 MB with the largest vocabularies.
MOST = 64 << 20
_PACE = (64 << 10, 30.0)  # no fewer bytes in so many seconds


@dataclass(frozen=True)
class Head:
    """`size` is in bytes, None where the server does not say it; `unfit` is what speaks against the file."""

    size: int | None
    header: gguf.Header | None
    unfit: judge.UnfitError | None = None

    def require(self) -> gguf.Header | None:
        """The header, if it is a GGUF. Raises UnfitError where something speaks against the file."""
        if self.unfit:
            raise self.unfit
        return self.header


def read(
    url: str, headers: Mapping[str, str], client: Client, name: str, *, is_gguf: bool = True, most: int = MOST
) -> Head:
    """Ask for a file's first bytes, and hang up where its header ends. Raises HttpError."""
    with client.stream(url, headers={**headers, "Range": f"bytes=0-{most - 1}"}) as answer:
        _, size = answer.place()
        content = _Bytes(answer.blocks(*_PACE), most)
        try:
            return Head(size, judge.look(content, name, size, is_gguf=is_gguf))
        except judge.UnfitError as bad:
            return Head(size, None, None if content.is_at_limit else bad)


class _Bytes:
    """What comes in blocks of any size, to be read in pieces of any other; no more than `most` bytes of it."""

    def __init__(self, blocks: Iterator[bytes], most: int) -> None:
        self._blocks = blocks
        self._left = most
        self._buffer = bytearray()

    @property
    def is_at_limit(self) -> bool:
        """Whether more would have been there."""
        return self._left <= 0

    def read(self, size: int, /) -> bytes:
        while len(self._buffer) < size and self._left > 0 and (block := next(self._blocks, b"")):
            self._buffer += block[: self._left]
            self._left -= len(block)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
