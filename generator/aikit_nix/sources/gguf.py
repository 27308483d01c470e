"""The header of a GGUF file: what a model says about itself.

Only the key-value part is read, and of it only what is asked for; the PyPI package `gguf` would do it too, but maps the
whole file and brings numpy. Layout: ggml's docs/gguf.md, versions 2 and 3. The file is untrusted: every length and every
number of things is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aikit_nix.base import files

_MAGIC = b"GGUF"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_KEYS = 65_536
_MAX_KEY = 65_535  # bytes, as in ggml's docs
_MAX_STRING = 16 * 1024 * 1024
# Of all arrays together. The largest vocabularies have 262,144 tokens and twice as many merges.
_MAX_STRINGS = 4 * 1024 * 1024
_MAX_HEADER = 256 * 1024 * 1024

# The keys that are kept.
_TEXTS = ("general.architecture", "general.name", "general.basename", "general.type", "tokenizer.chat_template")
_NUMBERS = (".context_length", ".pooling_type")


class NotGgufError(ValueError):
    """The bytes are no GGUF header, or one that is cut off or absurd."""


class Stream(Protocol):
    """What is read from: a file opened for reading, or something like it."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        ...


@dataclass(frozen=True)
class Facts:
    """What of a GGUF's header the image depends on. `context_length` counts tokens; None where the header says nothing."""

    chat_template: bool = False
    context_length: int | None = None
    pooling: int | None = None


@dataclass(frozen=True)
class Header:
    """What a GGUF says about itself; None where it says nothing. `context_length` counts tokens."""

    architecture: str | None
    name: str | None
    context_length: int | None
    chat_template: str | None
    kind: str | None = None
    pooling: int | None = None

    @property
    def facts(self) -> Facts:
        """What of it aikit.lock keeps."""
        return Facts(bool(self.chat_template), self.context_length, self.pooling)


def read(stream: Stream) -> Header:
    """Read the header. Raises NotGgufError, and what the stream raises."""
    reader = _Reader(stream)
    if reader.take(4) != _MAGIC:
        raise NotGgufError("it does not begin with the letters GGUF")
    version = reader.number("I")
    if version & 0xFFFF == 0:
        raise NotGgufError("it is a big-endian GGUF")
    if version not in (2, 3):
        raise NotGgufError(f"it is GGUF version {version}; 2 and 3 are known")
    reader.number("Q")  # tensors
    found = dict(reader.pairs(reader.number("Q")))
    architecture = _str(found.get("general.architecture"))
    return Header(
        architecture,
        _str(found.get("general.name")) or _str(found.get("general.basename")),
        _int(found.get(f"{architecture}.context_length")),
        _str(found.get("tokenizer.chat_template")),
        _str(found.get("general.type")),
        _int(found.get(f"{architecture}.pooling_type")),
    )


def of_file(file: Path) -> Facts | None:
    """What the header of a file says; None where it is not there, or no GGUF."""
    try:
        with files.open_regular(file) as stream:
            return read(stream).facts
    except (OSError, NotGgufError):
        return None


class _Reader:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = _MAX_HEADER
        self._strings = _MAX_STRINGS

    def take(self, size: int) -> bytes:
        if size > self._left:
            raise NotGgufError("its header is too long")
        data = self._stream.read(size)
        if len(data) < size:
            raise NotGgufError("it ends within its header")
        self._left -= size
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.take(min(size, 1 << 20)))

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0])

    def length(self, most: int = _MAX_STRING) -> int:
        size = self.number("Q")
        if size > most:
            raise NotGgufError(f"it has a string of {size} bytes")
        return size

    def pairs(self, count: int) -> Iterator[tuple[str, object]]:
        """Those that `read` may want to know."""
        if count > _MAX_KEYS:
            raise NotGgufError(f"it claims {count} keys")
        for _ in range(count):
            key = self.take(self.length(_MAX_KEY)).decode(errors="replace")
            kind = self.number("I")
            if kind == _STRING:
                if key in _TEXTS:
                    yield key, self.take(self.length()).decode(errors="replace")
                else:
                    self.skip(self.length())
            elif kind == _ARRAY:
                self._skip_array()
            elif kind in _FORMATS:
                value = struct.unpack("<" + _FORMATS[kind], self.take(_SIZES[kind]))[0]
                if key.endswith(_NUMBERS):
                    yield key, value
            else:
                raise NotGgufError(f"it has a value of the unknown type {kind}")

    def _skip_array(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind == _STRING:
            if count > self._strings:
                raise NotGgufError(f"it claims {count} strings")
            self._strings -= count
            for _ in range(count):
                self.skip(self.length())
        elif kind in _SIZES:
            if count > _MAX_HEADER:
                raise NotGgufError(f"it has an array of {count} values")
            self.skip(count * _SIZES[kind])
        else:
            raise NotGgufError(f"it has an array of the type {kind}")


def _str(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    """A number as llama.cpp takes these: of 32 bits, without a sign."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None
