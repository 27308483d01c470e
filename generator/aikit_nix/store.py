"""Local model files on their way into the Nix store, by hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from aikit_nix import nix
from aikit_nix.aikitfile import Aikitfile, Model
from aikit_nix.errors import AikitError, Diagnostic, error
from aikit_nix.plan import Plan

_NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def hash_local(aikitfile: Aikitfile, folder: Path) -> dict[str, str]:
    """The sha256 in hex of every local source, read below `folder` (the aikitfile's).

    Raises AikitError for all files that are missing, no regular file, or not what their sha256 says.
    """
    hashes: dict[str, str] = {}
    problems: list[Diagnostic] = []
    for model in aikitfile.models:
        if model.url is None:
            try:
                hashes[model.source.value] = _hash_model(model, folder)
            except AikitError as exception:
                problems.extend(exception.diagnostics)
    if problems:
        raise AikitError(*problems)
    return hashes


def _hash_model(model: Model, folder: Path) -> str:
    source, at = model.source.value, model.source.at
    file = folder / source
    try:
        if not file.is_file():
            what = "is a folder: name one file a model" if file.is_dir() else "does not exist: put the file there"
            raise error(f"source {source!r} {what} (paths count from the aikitfile's folder)", at, "local-file")
        sha256 = file_sha256(file)
    except OSError as exception:
        raise error(f"source {source!r} cannot be read: {exception.strerror}", at, "local-file") from None
    if model.sha256 and model.sha256.value != sha256:
        raise error(
            f"source {source!r} has the sha256 {sha256}: this is not the file that the aikitfile means",
            model.sha256.at,
            "sha256-mismatch",
        )
    return sha256


def file_sha256(file: Path) -> str:
    """The sha256 of a file in hex, read once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def add_local(aikitfile: Aikitfile, plan: Plan, folder: Path) -> list[Path]:
    """Add the local model files to the Nix store; returns those that were not in it yet.

    The store path of a flat sha256 file depends on its name and hash alone, so `requireFile` finds it again.
    """
    added = []
    for model, planned in zip(aikitfile.models, plan.models, strict=True):
        if planned.url is None and not nix.succeeds(
            ["nix-store", "--check-validity", store_path(planned.name, planned.sha256)]
        ):
            added.append(folder / model.source.value)
            _add(added[-1].resolve(), planned.name)
    return added


def _add(file: Path, name: str) -> None:
    """`nix-store --add-fixed` names a store path by its file: another name goes through a link of that name."""
    if file.name == name:
        nix.run(["nix-store", "--add-fixed", "sha256", file])
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".aikit-nix-", dir=file.parent) as folder:
            os.link(file, Path(folder) / name)
            nix.run(["nix-store", "--add-fixed", "sha256", Path(folder) / name])
    except OSError:
        # A read-only folder, or a file system without hard links.
        with tempfile.TemporaryDirectory(prefix="aikit-nix-") as folder:
            shutil.copyfile(file, Path(folder) / name)
            nix.run(["nix-store", "--add-fixed", "sha256", Path(folder) / name])


def store_path(name: str, sha256: str) -> Path:
    """Where Nix keeps a flat file of that name and sha256.

    Source: the Nix manual, "Complete Store Path Calculation" (fixed output, flat).
    """
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256}:".encode()).hexdigest()
    digest = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:{name}".encode()).digest()
    return Path(f"/nix/store/{_base32(_fold(digest, 20))}-{name}")


def _fold(digest: bytes, size: int) -> bytes:
    """Nix compresses a hash by folding it onto itself with xor."""
    folded = bytearray(size)
    for index, byte in enumerate(digest):
        folded[index % size] ^= byte
    return bytes(folded)


def _base32(data: bytes) -> str:
    """Nix's base-32: its own alphabet, the last five bits first."""
    number = int.from_bytes(data, "little")
    return "".join(_NIX_BASE32[(number >> (5 * index)) & 31] for index in reversed(range(len(data) * 8 // 5)))
