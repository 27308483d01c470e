"""A bundle on the other machine: looked at, imported by Nix, its flake written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.redact import shown
from aikit_nix.flakes.bundle import (
    FLAKE,
    INDEX,
    MAX_BYTES,
    STORE_PATH,
    VERSION,
    Index,
    Item,
    Kind,
    described,
    is_inside,
    plain,
)
from aikit_nix.nix import command as nix
from aikit_nix.nix import store


def read(folder: Path) -> Index:
    """A bundle's index. Raises AikitError."""
    file = folder / INDEX
    data = files.read_bounded(file, MAX_BYTES, ": that is no bundle of `aikit-nix bundle`, or it was not finished")
    try:
        value = json.loads(data)
        if value["formatVersion"] != VERSION:
            raise ValueError(f"it has the format {value['formatVersion']}, this aikit-nix reads {VERSION}")
        flake = {str(name): str(digest) for name, digest in value["flake"].items()}
        if unfit := [name for name in flake if not is_inside(name)]:
            raise ValueError(f"the file {unfit[0]!r} leaves the flake's folder")
        return Index(str(value["image"]), str(value["system"]), tuple(map(_item, value["paths"])), flake)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as bad:
        what = " ".join(str(bad).split())[:200]
        raise error(f"{file} is damaged ({what}): bring the bundle again", code="bundle") from None


def _item(value: Mapping[str, Any]) -> Item:
    item = Item(**{field.name: value[field.name] for field in fields(Item)} | {"kind": Kind(value["kind"])})
    if not isinstance(item.path, str) or not STORE_PATH.fullmatch(item.path):
        raise ValueError(f"{item.path!r} is no store path")
    return item


def check(folder: Path, index: Index) -> list[Diagnostic]:
    """What a bundle lacks, or has otherwise than its index says; the NARs' bytes are not read."""
    found = [_damaged(item.name, problem) for item in index.paths for problem in _problems(folder, item)]
    for name, digest in index.flake.items():
        try:
            if hashlib.sha256(files.read_bounded(folder / FLAKE / name, MAX_BYTES)).hexdigest() != digest:
                found.append(_damaged(f"{FLAKE}/{name}", "it has another sha256 than the index says"))
        except AikitError as failed:
            found.append(_damaged(f"{FLAKE}/{name}", failed.diagnostics[0].message))
    return found


def _damaged(name: str, problem: str) -> Diagnostic:
    return Diagnostic(Severity.ERROR, "bundle", f"the bundle's {shown(name)} is damaged: {problem}: bring it again")


def _problems(folder: Path, item: Item) -> Iterator[str]:
    try:
        said = _narinfo(folder / item.narinfo)
        nar = _nar(folder, said)
        if nar.stat().st_size != int(said["FileSize"]):
            yield f"{nar.name} has {nar.stat().st_size} bytes, not {said['FileSize']}"
        if said["StorePath"] != item.path or described(folder / item.narinfo) != item.narInfo:
            yield f"{item.narinfo} says otherwise than the index"
    except AikitError as failed:
        yield failed.diagnostics[0].message
    except FileNotFoundError:
        yield f"{said['URL']} is missing"
    except OSError as failed:
        yield f"{failed.filename}: {files.reason(failed)}"
    except (KeyError, ValueError) as bad:
        yield f"{item.narinfo} is no description of a store path ({bad})"


def _narinfo(file: Path) -> dict[str, str]:
    text = files.read_bounded(file, 1 << 20).decode(errors="replace")
    return dict(re.findall(r"^(\w+): (.*)$", text, re.MULTILINE))


def _nar(folder: Path, said: Mapping[str, str]) -> Path:
    if not re.fullmatch(r"nar/[0-9a-z]+\.nar(\.[0-9a-z]+)?", said["URL"]):
        raise ValueError(f"URL {said['URL']!r}")
    return folder / said["URL"]


def bring(folder: Path, index: Index, *, public_key: str | None = None, check_signatures: bool = True) -> int:
    """Import a bundle's store paths by Nix, which checks every hash; the number of those that were not there.

    What is fixed by its own hash needs no signature; what was built needs one by a key that this Nix trusts, or
    `public_key`, unless they are not to be checked. Raises AikitError, which names what is damaged; what was imported before is
    whole, and stays.
    """
    cache = f"file://{plain(folder)}"
    if found := check(folder, index):
        raise AikitError(*found)
    missing = nix.invalid(item.path for item in index.paths)
    options = ["--option", "extra-trusted-public-keys", public_key] if public_key else []
    if not check_signatures:
        options.append("--no-check-sigs")
    try:
        for some in nix.chunks(missing):
            nix.run("copy", *options, "--from", cache, *some)
    except AikitError as failed:
        still = set(nix.invalid(missing))
        if flipped := [
            _damaged(each.name, what) for each in index.paths if each.path in still for what in _read(folder, each)
        ]:
            raise AikitError(*flipped) from None
        said = failed.diagnostics[0].message
        if "signature" in said:
            raise error(
                f"{folder} holds what was built elsewhere, without the signature of a key that this Nix trusts: name the key"
                f" with --public-key, or trust it with --no-check-sigs ({said})"
            ) from None
        raise error(f"{folder} was imported in part only, run it again: {said}") from None
    return len(missing)


def _read(folder: Path, item: Item) -> Iterator[str]:
    """Whether a file of the cache has the hash that its description says."""
    said = _narinfo(folder / item.narinfo)
    with files.open_regular(_nar(folder, said)) as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    if store.base32(digest) != said.get("FileHash", "").removeprefix("sha256:"):
        yield f"{said['URL']} has another sha256 than {item.narinfo} says"


def write_flake(folder: Path, index: Index, output: Path) -> None:
    """The flake of a bundle as a new folder, or one that is empty. Raises AikitError."""
    if output.exists() and any(output.iterdir()):
        raise error(f"{output} is not empty: name a new folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aikit-nix-", dir=output.parent) as scratch:
            for name in index.flake:
                (Path(scratch) / FLAKE / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / FLAKE / name, Path(scratch) / FLAKE / name)
            if output.exists():
                output.rmdir()
            (Path(scratch) / FLAKE).rename(output)
    except OSError as failed:
        raise files.cannot_write(output, failed) from None
