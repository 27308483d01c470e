"""The header of a GGUF file: what a model says about itself.

Of its keys only what is asked for is kept, and of the list of tensors what follows from it; the PyPI package `gguf` would do it too, but maps the
whole file and brings numpy. Layout: ggml's docs/gguf.md, versions 2 and 3. The file is untrusted: every length and every
number of things is bounded.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias

from msgspec import Meta, Struct, field, structs

from aikit_nix.sources.role import Role, role_of

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
_MAX_TENSORS = 1_000_000

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
    "general.alignment",
    "split.no",
    "split.count",
)
# Of these only how many there are.
_COUNTED = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
_MAX_LAYERS = 4096
# Of how many layers one looks at the whole context, where the architecture and not the header says it (llama.cpp's
# src/models: set_swa_pattern). Other architectures with windows are taken for ones without: never too little.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}
# ggml's types, as TYPE:WEIGHTS/BYTES of a block (gguf-py's GGML_QUANT_SIZES).
_BLOCKS = {
    int(kind): (int(weights), int(size))
    for kind, weights, size in re.findall(
        r"(\d+):(\d+)/(\d+)",
        "0:1/4 1:1/2 2:32/18 3:32/20 6:32/22 7:32/24 8:32/34 9:32/36 10:256/84 11:256/110 12:256/144 13:256/176 14:256/210"
        " 15:256/292 16:256/66 17:256/74 18:256/98 19:256/50 20:32/18 21:256/110 22:256/82 23:256/136 24:1/1 25:1/2 26:1/4"
        " 27:1/8 28:1/8 29:256/56 30:1/2 34:256/54 35:256/66 39:32/17 40:64/36 41:128/18 42:64/18",
    )
}
# Those that llama.cpp rewrites for the processor as it loads them (ggml-cpu/repack.cpp, x86-64): Q4_0, Q2_K, Q4_K, IQ4_NL,
# MXFP4.
_REPACKED = (2, 10, 12, 20, 39)


# What aikit.lock holds: JSON's numbers are exact up to here.
_MOST = 1 << 53
Number: TypeAlias = Annotated[int, Meta(ge=0, lt=_MOST)]
U32: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 32)]


class NotGgufError(ValueError):
    """The bytes are no GGUF header, or one that is cut off or absurd."""


class Readable(Protocol):
    """What is read from: a file opened for reading, or something like it."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        ...


class Shape(Struct, frozen=True, omit_defaults=True):
    """What a model's memory follows from (engines/memory.py).

    `keys` and `values` are the numbers that one token of the context has in the cache, in all layers together;
    `window_keys` and `window_values` those of the layers that see no more than `window` tokens. `buffers` are the numbers
    of one token in a batch, `repacked` the bytes of weights that stand in memory twice.
    """

    keys: Number = 0
    values: Number = 0
    window: Number = 0
    window_keys: Number = 0
    window_values: Number = 0
    buffers: Number = 0
    tokens: Number = 0
    merges: Number = 0
    repacked: Number = 0


class Facts(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What of a GGUF's header the image depends on. `context_length` counts tokens; None where the header says nothing."""

    chat_template: bool = field(default_factory=bool)  # so aikit.lock always has it
    context_length: U32 | None = None
    pooling: U32 | None = None
    shape: Shape | None = field(default=None, name="memory")
    role: Role = Role.MODEL


@dataclass(frozen=True)
class Header:
    """What a GGUF says about itself; None where it says nothing. `context_length` counts tokens.

    `least` is how many bytes the file must have for its tensors, None where they are of a type that is not known here.
    `part` and `parts` are its place among the files of one model (from 1), and how many they are.
    """

    architecture: str | None
    name: str | None
    context_length: int | None
    chat_template: str | None
    kind: str | None = None
    pooling: int | None = None
    shape: Shape | None = None
    least: int | None = None
    part: int = 1
    parts: int = 1

    @property
    def role(self) -> Role:
        """What it is for."""
        return role_of(self.kind, self.architecture)

    @property
    def facts(self) -> Facts:
        """What of it aikit.lock keeps."""
        return Facts(bool(self.chat_template), self.context_length, self.pooling, self.shape, self.role)


def read(stream: Readable) -> Header:
    """Read the header. Raises NotGgufError, and what the stream raises."""
    reader = _Reader(stream)
    if reader.take(4) != _MAGIC:
        raise NotGgufError("it does not begin with the letters GGUF")
    version = reader.number("I")
    if version & 0xFFFF == 0:
        raise NotGgufError("it is a big-endian GGUF")
    if version not in (2, 3):
        raise NotGgufError(f"it is GGUF version {version}; 2 and 3 are known")
    count = reader.number("Q")
    found = dict(reader.pairs(reader.number("Q")))
    architecture = _str(found.get("general.architecture"))
    tensors = list(reader.tensors(count))
    return Header(
        architecture,
        _str(found.get("general.name")) or _str(found.get("general.basename")),
        _int(found.get(f"{architecture}.context_length")),
        _str(found.get("tokenizer.chat_template")),
        _str(found.get("general.type")),
        _int(found.get(f"{architecture}.pooling_type")),
        _shape(architecture, found, sum(tensor.repacked for tensor in tensors)),
        reader.least(tensors, _int(found.get("general.alignment")) or 32),
        (_int(found.get("split.no")) or 0) + 1,
        _int(found.get("split.count")) or 1,
    )


def _shape(architecture: str | None, found: Mapping[str, object], repacked: int) -> Shape | None:
    """None where the header lacks a number that it takes, or is absurd. A model's later shards have no more than weights."""

    def numbers(key: str, otherwise: int | None = None) -> list[int]:
        value = found.get(f"{architecture}.{key}")
        if isinstance(value, list) and len(value) >= layers:
            return value[:layers]
        each = _int(value)
        return [otherwise or 0 if each is None else each] * layers

    layers = _int(found.get(f"{architecture}.block_count")) or 0
    width = _int(found.get(f"{architecture}.embedding_length")) or 0
    if _int(found.get("split.no")):
        return Shape(repacked=repacked) if repacked < _MOST else None
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
    return shape if max(structs.astuple(shape)) < _MOST else None


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor ends, counted from the first; None for an unknown type. `repacked` are its bytes that stand twice."""

    end: int | None
    repacked: int


class _Reader:
    def __init__(self, stream: Readable) -> None:
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

    def tensors(self, count: int) -> Iterator[_Tensor]:
        """The list of tensors. Token embeddings are looked up, so they are never repacked."""
        if count > _MAX_TENSORS:
            raise NotGgufError(f"it claims {count} tensors")
        for _ in range(count):
            name = self.take(self.length(_MAX_KEY))
            dimensions = self.number("I")
            if dimensions > 4:
                raise NotGgufError(f"it has a tensor of {dimensions} dimensions")
            numbers = [self.number("Q") for _ in range(dimensions)]
            kind, offset = self.number("I"), self.number("Q")
            weights, block = _BLOCKS.get(kind, (1, 0))
            size = -(-math.prod(numbers) // weights) * block
            doubled = kind in _REPACKED and dimensions > 1 and numbers[1] % 8 == 0 and b"token_embd" not in name
            yield _Tensor(offset + size if block else None, size if doubled else 0)

    def least(self, tensors: list[_Tensor], alignment: int) -> int | None:
        """How many bytes the file has, up to the end of its last tensor. Called where the list of them was read."""
        here = _MAX_HEADER - self._left
        ends = [tensor.end for tensor in tensors if tensor.end is not None]
        if len(ends) < len(tensors):
            return None
        return -(-here // alignment) * alignment + max(ends) if ends else here


def _str(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    """A number as llama.cpp takes these: of 32 bits, without a sign."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None
