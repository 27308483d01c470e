"""The Nix store: where a file of a known hash lies in it, and how it gets there."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from aikit_nix.base import files, process
from aikit_nix.base.errors import error
from aikit_nix.base.hashing import BLOCK
from aikit_nix.base.redact import shown
from aikit_nix.nix import command
from aikit_nix.nix.stream import StoreStream

_PIECE = 32 << 20  # bytes; more than can be on its way to Nix
_NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def name(file_name: str) -> str:
    """A file name as the store allows it: `[0-9A-Za-z+._?=-]`, no leading dot, at most 211 characters, no derivation's.

    Byte by byte, as nix/lib/lock.nix has the same rule and Nix knows no characters.
    """
    plain = re.sub(rb"[^0-9A-Za-z+._?=-]", b"-", file_name.encode(errors="surrogatepass")).decode()
    fitting = plain.lstrip(".")[-200:].lstrip(".") or "model"
    return fitting + "-" if fitting.endswith(".drv") else fitting


def present(wanted: Iterable[tuple[str, str]]) -> list[bool]:
    """For each (file name, sha256): whether the store holds that file. One question to Nix for all."""
    paths = [str(store_path(name(file), sha256)) for file, sha256 in wanted]
    missing = set(command.invalid(paths))
    return [path not in missing for path in paths]


def store_path(name: str, sha256: str) -> Path:
    """Where Nix keeps a flat file of that name and sha256.

    What `nix-store --print-fixed-path sha256 SHA256 NAME` prints, which a test compares it with: that takes 10 ms a file, and an
    aikitfile may have a thousand. Source: the Nix manual, "Complete Store Path Calculation" (fixed output, flat).
    """
    return _fixed_path(name, "sha256", sha256)


def addressed(content: str, name: str) -> Path | None:
    """The store path that a content address fixes: `fixed:` or `fixed:r:`, algorithm, `:`, digest in base 32.

    None where it is another text. Source: the same chapter; an output of several files with a SHA-256 is a "source".
    """
    found = re.fullmatch(r"fixed:(r:)?(md5|sha1|sha256|sha512):([0-9a-z]+)", content)
    if not found:
        return None
    try:
        digest = from_base32(found[3])
    except ValueError:
        return None
    if found[1] and found[2] == "sha256":
        return _path("source", digest.hex(), name)
    return _fixed_path(name, (found[1] or "") + found[2], digest.hex())


def _fixed_path(name: str, how: str, digest: str) -> Path:
    return _path("output:out", hashlib.sha256(f"fixed:out:{how}:{digest}:".encode()).hexdigest(), name)


def _path(kind: str, sha256: str, name: str) -> Path:
    digest = hashlib.sha256(f"{kind}:sha256:{sha256}:/nix/store:{name}".encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    return Path(f"/nix/store/{base32(bytes(folded))}-{name}")


def base32(digest: bytes) -> str:
    """A digest as Nix writes it: 5 bits a character, the last first."""
    number = int.from_bytes(digest, "little")
    length = (len(digest) * 8 + 4) // 5
    return "".join(_NIX_BASE32[(number >> (5 * index)) & 31] for index in reversed(range(length)))


def from_base32(text: str) -> bytes:
    """The digest that `base32` wrote. Raises ValueError for what it would not write."""
    number = sum(_NIX_BASE32.index(digit) << (5 * index) for index, digit in enumerate(reversed(text)))
    try:
        return number.to_bytes(len(text) * 5 // 8, "little")
    except OverflowError:
        raise ValueError(f"{text!r} is no digest") from None


def add(file: Path, file_name: str, sha256: str, *, consume: bool = False) -> bool:
    """Bring a file into the store, unless it is there; whether it was brought. Later builds find it by name and hash.

    `sha256` in hex is what the file must have. With `consume` its blocks are given back to the file system as they enter
    the store: it is of no use afterwards. Raises AikitError.
    """
    path = store_path(name(file_name), sha256)
    if process.succeeds(["nix-store", "--check-validity", path]):
        return False
    file = file.resolve()
    if (_streamed(file, name(file_name), consume=consume) or _added(file, name(file_name))) != path:
        raise error(f"{shown(str(file))} has another sha256 than {sha256}: it changed", code="sha256-mismatch")
    return True


def _streamed(file: Path, name: str, *, consume: bool) -> Path | None:
    """None where this Nix does not take it that way."""
    stream = StoreStream(name)
    at = given = 0
    try:
        with files.open_regular(file) as source, file.open("r+b" if consume else "rb") as same:
            while block := source.read(BLOCK):
                stream.write(block)
                at += len(block)
                if consume and at % _PIECE == 0 and not stream.failed:
                    given = at - _PIECE
                    files.punch(same.fileno(), given)
        path = stream.finish()
    except OSError as failed:
        raise error(f"{shown(str(file))} cannot be read: {files.reason(failed)}", code="file-read") from None
    finally:
        stream.abort()
    if path is None and given:
        raise error(
            f"the Nix store did not take {name} to its end (is its disk full?): it has to come again", code="store"
        )
    return path


def _added(file: Path, name: str) -> Path:
    """`nix-store --add-fixed` names a store path by its file: another name goes through a copy of that name."""
    if file.name == name:
        return _add_fixed(file)
    with files.scratch() as folder:
        shutil.copyfile(file, folder / name)
        return _add_fixed(folder / name)


def _add_fixed(file: Path) -> Path:
    return Path(process.run(["nix-store", "--add-fixed", "sha256", file]).strip())
