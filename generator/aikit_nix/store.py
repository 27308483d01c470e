"""The Nix store: where a file of a known hash lies in it, and how it gets there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from aikit_nix import process

_NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def file_sha256(file: Path) -> str:
    """The sha256 of a file in hex, read once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has(name: str, sha256: str) -> bool:
    """Whether the store holds a file of that name and sha256."""
    return process.succeeds(["nix-store", "--check-validity", store_path(name, sha256)])


def add(file: Path, name: str, sha256: str) -> bool:
    """Put a file into the store, unless it is there; whether it was put. Later builds find it by name and hash."""
    if has(name, sha256):
        return False
    _add(file.resolve(), name)
    return True


def _add(file: Path, name: str) -> None:
    """`nix-store --add-fixed` names a store path by its file: another name goes through a link of that name."""
    if file.name == name:
        process.run(["nix-store", "--add-fixed", "sha256", file])
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".aikit-nix-", dir=file.parent) as folder:
            os.link(file, Path(folder) / name)
            process.run(["nix-store", "--add-fixed", "sha256", Path(folder) / name])
    except OSError:
        # A read-only folder, or a file system without hard links.
        with tempfile.TemporaryDirectory(prefix="aikit-nix-") as folder:
            shutil.copyfile(file, Path(folder) / name)
            process.run(["nix-store", "--add-fixed", "sha256", Path(folder) / name])


def store_path(name: str, sha256: str) -> Path:
    """Where Nix keeps a flat file of that name and sha256.

    What `nix-store --print-fixed-path sha256 SHA256 NAME` prints, which a test compares it with: that takes 10 ms a file, and an
    aikitfile may have a thousand. Source: the Nix manual, "Complete Store Path Calculation" (fixed output, flat).
    """
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256}:".encode()).hexdigest()
    digest = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:{name}".encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    number = int.from_bytes(folded, "little")
    base32 = "".join(_NIX_BASE32[(number >> (5 * index)) & 31] for index in reversed(range(32)))
    return Path(f"/nix/store/{base32}-{name}")
