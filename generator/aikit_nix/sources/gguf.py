"""The header of a GGUF file: what a model says about itself.

Of its keys only what is asked for is read, and the list of tensors; the PyPI package `gguf` would do it too, but maps the
whole file and brings numpy. Layout: ggml's docs/gguf.md, versions 2 and 3. The file is untrusted: every length and every
number of things is bounded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
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
_NUMBERS = (
    ".context_length",
    ".pooling_type",
    ".block_count",
    ".embedding_length",
    ".feed_forward_length",
    ".expert_feed_forward_length",
    ".expert_used_count",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
    ".attention.sliding_window",
)
# Of these only how many there are.
_COUNTED = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
_MAX_LAYERS = 4096
# Of how many layers one looks at the whole context, where the architecture and not the header says it (llama.cpp's
# src/models: set_swa_pattern). Other architectures with windows are taken for ones without: never too little.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}
# Bytes of a block of so many weights, for the types that llama.cpp rewrites for the processor as it loads them
# (ggml-cpu/repack.cpp, x86-64): Q4_0, Q2_K, Q4_K, IQ4_NL, MXFP4.
_REPACKED = {2: (32, 18), 10: (256, 84), 12: (256, 144), 20: (32, 18), 39: (32, 17)}


# What aikit.lock holds: JSON's numbers are exact up to here.
MOST = 1 << 53


class NotGgufError(ValueError):
    """The bytes are no GGUF header, or one that is cut off or absurd."""


class Stream(Protocol):
    """What is read from: a file opened for reading, or something like it."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        ...


@dataclass(frozen=True)
class Shape:
    """What a model's memory follows from (engines/memory.py).

    `keys` and `values` are the numbers that one token of the context has in the cache, in all layers together;
    `window_keys` and `window_values` those of the layers that see no more than `window` tokens. `buffers` are the numbers
    of one token in a batch, `repacked` the bytes of weights that stand in memory twice.
    """

    keys: int = 0
    values: int = 0
    window: int = 0
    window_keys: int = 0
    window_values: int = 0
    buffers: int = 0
    tokens: int = 0
    merges: int = 0
    repacked: int = 0


@dataclass(frozen=True)
class Facts:
    """What of a GGUF's header the image depends on. `context_length` counts tokens; None where the header says nothing."""

    chat_template: bool = False
    context_length: int | None = None
    pooling: int | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Header:
    """What a GGUF says about itself; None where it says nothing. `context_length` counts tokens."""

    architecture: str | None
    name: str | None
    context_length: int | None
    chat_template: str | None
    kind: str | None = None
    pooling: int | None = None
    shape: Shape | None = None

    @property
    def facts(self) -> Facts:
        """What of it aikit.lock keeps."""
        return Facts(bool(self.chat_template), self.context_length, self.pooling, self.shape)


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
    tensors = reader.number("Q")
    found = dict(reader.pairs(reader.number("Q")))
    architecture = _str(found.get("general.architecture"))
    return Header(
        architecture,
        _str(found.get("general.name")) or _str(found.get("general.basename")),
        _int(found.get(f"{architecture}.context_length")),
        _str(found.get("tokenizer.chat_template")),
        _str(found.get("general.type")),
        _int(found.get(f"{architecture}.pooling_type")),
        _shape(architecture, found, reader, tensors),
    )


def _shape(architecture: str | None, found: Mapping[str, object], reader: _Reader, tensors: int) -> Shape | None:
    """None where the header lacks a number that it takes, or is absurd."""

    def numbers(key: str, otherwise: int | None = None) -> list[int]:
        value = found.get(f"{architecture}.{key}")
        if isinstance(value, list) and len(value) >= layers:
            return value[:layers]
        each = _int(value)
        return [otherwise or 0 if each is None else each] * layers

    layers = _int(found.get(f"{architecture}.block_count")) or 0
    width = _int(found.get(f"{architecture}.embedding_length")) or 0
    if not 0 < layers <= _MAX_LAYERS or not width:
        return None
    heads = numbers("attention.head_count")
    shared = numbers("attention.head_count_kv") if f"{architecture}.attention.head_count_kv" in found else heads
    size = width // (max(heads) or 1)
    keys = list(map(int.__mul__, shared, numbers("attention.key_length", size)))
    values = list(map(int.__mul__, shared, numbers("attention.value_length", size)))
    window = max(numbers("attention.sliding_window"))
    every = _PATTERNS.get(architecture or "", 1) if window else 1
    narrow = [(layer + 1) % every != 0 for layer in range(layers)]
    # Of a mixture of experts several work on each token.
    experts = max(numbers("expert_used_count"))
    inner = max(*numbers("feed_forward_length"), experts * max(numbers("expert_feed_forward_length")))
    try:
        repacked = sum(reader.repacked(tensors))
    except NotGgufError:
        return None
    shape = Shape(
        sum(number for number, is_narrow in zip(keys, narrow, strict=True) if not is_narrow),
        sum(number for number, is_narrow in zip(values, narrow, strict=True) if not is_narrow),
        window if any(narrow) else 0,
        sum(number for number, is_narrow in zip(keys, narrow, strict=True) if is_narrow),
        sum(number for number, is_narrow in zip(values, narrow, strict=True) if is_narrow),
        3 * inner + (5 + experts) * width,
        _int(found.get("tokenizer.ggml.tokens")) or 0,
        _int(found.get("tokenizer.ggml.merges")) or 0,
        repacked,
    )
    return shape if max(vars(shape).values()) < MOST else None


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
                count, numbers = self._array(keep=key.endswith(_NUMBERS))
                if key in _COUNTED or numbers:
                    yield key, numbers or count
            elif kind in _FORMATS:
                value = struct.unpack("<" + _FORMATS[kind], self.take(_SIZES[kind]))[0]
                if key.endswith(_NUMBERS):
                    yield key, value
            else:
                raise NotGgufError(f"it has a value of the unknown type {kind}")

    def _array(self, *, keep: bool) -> tuple[int, list[int]]:
        """How many things are in it, and of a short one, to keep, the numbers."""
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
            if keep and count <= _MAX_LAYERS and _FORMATS[kind] in "iI":
                numbers = struct.unpack(f"<{count}{_FORMATS[kind]}", self.take(count * _SIZES[kind]))
                return count, [max(number, 0) for number in numbers]
            self.skip(count * _SIZES[kind])
        else:
            raise NotGgufError(f"it has an array of the type {kind}")
        return count, []

    def repacked(self, count: int) -> Iterator[int]:
        """The bytes of each tensor that is rewritten; token embeddings are looked up and stay as they are."""
        if count > _MAX_KEYS:
            raise NotGgufError(f"it claims {count} tensors")
        for _ in range(count):
            name = self.take(self.length(_MAX_KEY))
            dimensions = self.number("I")
            if dimensions > 4:
                raise NotGgufError(f"it has a tensor of {dimensions} dimensions")
            numbers = [self.number("Q") for _ in range(dimensions)]
            kind, _ = self.number("I"), self.number("Q")
            if kind in _REPACKED and dimensions > 1 and numbers[1] % 8 == 0 and b"token_embd" not in name:
                block, size = _REPACKED[kind]
                yield math.prod(numbers) // block * size


def _str(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    """A number as llama.cpp takes these: of 32 bits, without a sign."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None
