"""The model layer: one model file as one layer of an image, by a rule that depends on nothing else (docs/model-layer.md).

    model_layer.py layer PATH FILE > LAYER.tar       the layer of FILE, which is PATH in the image
    model_layer.py describe PATH FILE > LAYER.json   its {"digest", "size"}, without writing it

Digest and size follow from the path, the size and the bytes, on every machine and for ever: whoever hashes a model can
hash its layer in the same pass, as header + content + trailer. Needs nothing but Python, in Nix's sandbox too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20
ALIGNMENT = 4096  # bytes; what file systems share, and the kernel maps
LONGEST_PATH = 4095  # Linux' PATH_MAX; the folders above it add up to its square
FOLDER_MODE = 0o755
FILE_MODE = 0o444
MTIME = 1  # seconds; what the Nix store gives its files, and dockerTools its layers


def header(path: str, size: int) -> bytes:
    """All bytes of the layer before the model's own: the folders above `path`, and the file's header.

    `path` is the file's absolute path in the image, `size` its size in bytes. Raises ValueError for a path that is not
    absolute, not normal or too long, and for a negative size.
    """
    if len(path) > LONGEST_PATH:
        raise ValueError(f"a path of {len(path)} characters is longer than Linux takes")
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") or "\0" in part for part in parts[1:]):
        raise ValueError(f"{path!r} is no absolute path in normal form")
    if size < 0:
        raise ValueError(f"{size} is no size")
    folders = ["/".join(parts[1:end]) for end in range(2, len(parts))]
    above = b"".join(_entry(folder, tarfile.DIRTYPE, FOLDER_MODE, 0, {}) for folder in folders)
    name, blanks = "/".join(parts[1:]), itertools.count(tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
    heads = (above + _entry(name, tarfile.REGTYPE, FILE_MODE, size, {"comment": " " * count}) for count in blanks)
    return next(head for head in heads if len(head) % ALIGNMENT == 0)


def _entry(name: str, kind: bytes, mode: int, size: int, records: dict[str, str]) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, MTIME
    info.uname = info.gname = "root"
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def trailer(size: int) -> bytes:
    """All bytes of the layer after a model of `size` bytes: padding, and the two empty blocks that end a tar."""
    return bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def layer_size(path: str, size: int) -> int:
    """The layer's size in bytes. Raises ValueError as `header` does."""
    return len(header(path, size)) + size + len(trailer(size))


def blocks(path: str, file: Path) -> Iterator[bytes]:
    """The layer's bytes, read from the model's `file` once.

    Raises ValueError as `header` does, OSError when the file cannot be read or ends before its size.
    """
    with file.open("rb", buffering=0) as content:
        size = file.stat().st_size
        yield header(path, size)
        left = size
        while left and (block := content.read(min(BLOCK, left))):
            left -= len(block)
            yield block
        if left:
            raise OSError(f"{file} became shorter while it was read")
        yield trailer(size)


def describe(path: str, file: Path) -> dict[str, Any]:
    """The layer's digest, as OCI writes it, and its size in bytes. Raises as `blocks` does."""
    digest, size = hashlib.sha256(), 0
    for block in blocks(path, file):
        digest.update(block)
        size += len(block)
    return {"digest": f"sha256:{digest.hexdigest()}", "size": size}


def write(path: str, file: Path, out: BinaryIO) -> None:
    """Write the layer into an empty file. Raises as `blocks` does.

    The kernel moves the model's bytes, or shares them: btrfs, XFS and others can, as they begin at ALIGNMENT.
    """
    with file.open("rb", buffering=0) as content:
        size = file.stat().st_size
        out.write(header(path, size))
        out.flush()
        with suppress(OSError):  # into a pipe, say; where the disk is full, the next line says so
            while os.copy_file_range(content.fileno(), out.fileno(), max(size, BLOCK)):
                pass
        shutil.copyfileobj(content, out, BLOCK)
        if content.tell() != size:
            raise OSError(f"{file} changed while it was read")
        out.write(trailer(size))
        out.flush()


def _main(mode: str, path: str, file: str) -> None:
    try:
        match mode:
            case "layer":
                write(path, Path(file), sys.stdout.buffer)
            case "describe":
                json.dump(describe(path, Path(file)), sys.stdout, sort_keys=True)
                sys.stdout.flush()
            case _:
                sys.exit(f"error: {mode} is neither `layer` nor `describe`")
    except (OSError, ValueError) as problem:
        # Python would write what it still has once more at the end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"error: the layer of {path} is not complete: {problem}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
