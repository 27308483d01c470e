"""Whether a file is what its name says: judged by its first bytes and by what a GGUF's header says.

A proxy's page, an error in JSON, a Git LFS pointer, half a download under the name of a model pass every hash, once they
were pinned. So they are refused wherever bytes are seen: `lock`, `fetch`, `gen`, `check`, `init`. What is meant as it is
can be pinned with `aikit-nix lock --as-is`.
"""

from __future__ import annotations

import re
from pathlib import Path

from aikit_nix.base import files
from aikit_nix.sources import gguf
from aikit_nix.sources.gguf import Facts, Header, Readable

PEEK = 512  # bytes; a tar says what it is at 257

_PARTS = re.compile(
    r".*\.gguf[._-](?!gz|bz|xz|md)((part|split)[._-]?)?([a-z]{1,2}|\d{1,5})([._-]?of[._-]?\d{1,5})?", re.IGNORECASE
)
# What weights are called elsewhere: a page or an error under such a name is none either
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".ckpt", ".h5", ".msgpack", ".model")
_BEGINNINGS = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer: fetch the file itself (`git lfs pull`, or its address with /resolve/)",
    ),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", "an HTML page (of a sign-in, an error or a proxy?)"),
    # A binary may begin with a brace, too: the length of a safetensors' header does
    (rb"(\xef\xbb\xbf)?\s*[{\[][^\x00-\x08\x0e-\x1f]*\Z", "a JSON text (an error of the server?)"),
    (rb"(?s:.{8})\{\s*\"", "a safetensors file"),
    (rb"PK\x03\x04", "a ZIP archive: unpack it"),
    (rb"\x1f\x8b", "compressed with gzip: unpack it"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it"),
    (rb"\xfd7zXZ", "compressed with xz: unpack it"),
    (rb"BZh[1-9]", "compressed with bzip2: unpack it"),
    (rb"7z\xbc\xaf", "a 7z archive: unpack it"),
    (rb"(?s:.{257})ustar", "a tar archive: unpack it"),
    (rb"lmgg|tjgg|fmgg|algg", "of GGML, the format before GGUF, which no engine reads: convert it"),
)

_POINTER, *_PAGES = (what for _, what in _BEGINNINGS[:3])


class UnfitError(ValueError):
    """The file is not what its name says; the message says what it is instead."""


class OddError(UnfitError):
    """The file is nothing that is known here, though its name says that it is a GGUF."""


def expects_gguf(name: str) -> bool:
    """Whether a file of this name should be a GGUF."""
    return name.lower().endswith(".gguf")


def is_piece(name: str) -> bool:
    """Whether a name says that the file is some bytes of a GGUF, to be put together with others."""
    return _PARTS.fullmatch(name) is not None


def look(stream: Readable, name: str, size: int | None = None, *, is_gguf: bool = False) -> Header | None:
    """The header of a GGUF called `name`; None for another file that nothing speaks against.

    `size` is the file's, in bytes, where it is known; `is_gguf` says that it should be one whatever its name. Raises
    UnfitError, and what the stream raises.
    """
    if is_piece(name):
        raise UnfitError(
            "is a piece of a GGUF, which no engine puts together: join all of them (`cat`), and name the whole"
        )
    wanted = is_gguf or expects_gguf(name)
    beginning = stream.read(PEEK)
    if not beginning.startswith(b"GGUF"):
        found = next((what for pattern, what in _BEGINNINGS if re.match(pattern, beginning, re.IGNORECASE)), None)
        if wanted:
            if found:
                raise UnfitError(f"is no GGUF: it is {found}")
            raise OddError(f"is no GGUF: it {'does not begin with the letters GGUF' if beginning else 'is empty'}")
        if found == _POINTER or (found in _PAGES and name.lower().endswith(_WEIGHTS)):
            raise UnfitError(f"is no model: it is {found}")
        return None
    try:
        header = gguf.read(_Again(beginning, stream))
    except gguf.NotGgufError as bad:
        raise UnfitError(f"is no GGUF that can be used: {bad}") from None
    if size is not None and header.least is not None and header.least > size:
        raise UnfitError(
            f"is cut off: it has {size} bytes, and {header.least} by its own table of tensors: fetch it again"
        )
    if header.parts > 1:
        _check_shard(name, header)
    return header


def of_file(file: Path, name: str | None = None, *, is_gguf: bool = False) -> Header | None:
    """`look` at a file of the disk. Raises UnfitError and OSError."""
    with files.open_regular(file) as stream:
        return look(stream, name or file.name, file.stat().st_size, is_gguf=is_gguf)


def facts(file: Path) -> Facts | None:
    """What a file of the disk says of itself; None where it is no GGUF that can be used, a later shard, or not there."""
    try:
        header = of_file(file)
    except (OSError, UnfitError):
        return None
    return header.facts if header and header.part == 1 else None


def _check_shard(name: str, header: Header) -> None:
    """llama.cpp looks for the other files of a model by this name and no other (llama_split_path)."""
    ending = f"-{header.part:05}-of-{header.parts:05}.gguf"
    if not name.endswith(ending):
        raise UnfitError(
            f"is file {header.part} of a model of {header.parts}, by its header, which llama.cpp finds only where they are"
            f" called NAME{ending}: rename them"
        )


class _Again:
    """A stream whose first bytes were read already."""

    def __init__(self, beginning: bytes, stream: Readable) -> None:
        self._beginning = beginning
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        taken, self._beginning = self._beginning[:size], self._beginning[size:]
        return taken + self._stream.read(size - len(taken)) if len(taken) < size else taken
