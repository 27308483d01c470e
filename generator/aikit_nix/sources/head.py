"""The head of a file at its origin: how large the file is, and what a GGUF says about itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aikit_nix.sources import gguf

if TYPE_CHECKING:
    from aikit_nix.http.client import Client, Stream

# The chat template stands behind the vocabulary: 5 to 10 MB into today's files, 16 MB with the largest vocabularies.
MOST = 32 << 20
_PACE = (64 << 10, 30.0)  # no fewer bytes in so many seconds


@dataclass(frozen=True)
class Head:
    """`size` is in bytes, None where the server does not say it; `problem` says why there is no header."""

    size: int | None
    header: gguf.Header | None
    problem: str = ""


def read(url: str, headers: Mapping[str, str], client: Client, most: int = MOST) -> Head:
    """Ask for a file's first bytes, and hang up where the header ends. Raises HttpError."""
    with client.stream(url, headers={**headers, "Range": f"bytes=0-{most - 1}"}) as answer:
        size = _size(answer)
        try:
            return Head(size, gguf.read(_Bytes(answer.blocks(*_PACE), most)))
        except gguf.NotGgufError as bad:
            return Head(size, None, str(bad))


def _size(answer: Stream) -> int | None:
    said = answer.headers.get("Content-Length", "")
    if answer.status == 206:
        said = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(said) if re.fullmatch(r"[0-9]{1,16}", said) else None


class _Bytes:
    """What comes in blocks of any size, to be read in pieces of any other; no more than `most` bytes of it."""

    def __init__(self, blocks: Iterator[bytes], most: int) -> None:
        self._blocks = blocks
        self._left = most
        self._buffer = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self._buffer) < size and self._left > 0 and (block := next(self._blocks, b"")):
            self._buffer += block[: self._left]
            self._left -= len(block)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
