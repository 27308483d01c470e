"""A bundle on the other machine: looked at, imported by Nix, its flake written.

Nothing in it is believed. A store path comes from bytes that its own content address fixes; one that was built comes
with an index that a trusted key signed. Nix reads descriptions that are written anew here, from what was understood.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.redact import shown
from aikit_nix.flakes.bundle import (
    CACHE,
    FLAKE,
    INDEX,
    MAX_BYTES,
    NARINFO_BYTES,
    SIGNATURE,
    VERSION,
    Index,
    Item,
    PathKind,
    is_own,
    narinfo,
    plain,
)
from aikit_nix.nix import command as nix
from aikit_nix.nix import keys, store

_NAMES = re.compile(rf"{CACHE}|[0-9a-z]{{32}}\.narinfo|nar/[0-9a-z]+\.nar(\.[0-9a-z]+)?")


@dataclass(frozen=True)
class Bundle:
    """A bundle's index, and the name of the trusted key that signed it, if one did."""

    folder: Path
    index: Index
    signer: str | None

    @property
    def flake(self) -> list[str]:
        """The files of the flake, by their names in it."""
        return [name.removeprefix(f"{FLAKE}/") for name in self.index.files if name.startswith(f"{FLAKE}/")]


@dataclass(frozen=True)
class Unpacked:
    """What was read of a bundle, once, and is as the index says: texts for Nix by name, the flake's files by name."""

    cache: Mapping[str, bytes]
    flake: Mapping[str, bytes]


def read(folder: Path, public_key: str | None = None) -> Bundle:
    """A bundle's index, signed by `public_key` (`NAME:BASE64`) where one is named. Raises AikitError."""
    file = folder / INDEX
    data = files.read_bounded(file, MAX_BYTES, ": that is no bundle of `aikit-nix bundle`, or it was not finished")
    signer = _signer(folder, data, public_key)
    with typed_json.refusing(f"{file} is damaged", "bring the bundle again", "bundle"):
        index = typed_json.versioned(typed_json.parse(data), Index, VERSION)
        if unfit := [name for name in index.files if not (_NAMES.fullmatch(name) or _is_flakes(name))]:
            raise ValueError(f"{shown(unfit[0])!r} is no file of a bundle")
        if lacks := {CACHE, *(item.narinfo for item in index.paths)} - index.files.keys():
            raise ValueError(f"it names no {min(lacks)}")
    return Bundle(folder, index, signer)


def _signer(folder: Path, data: bytes, public_key: str | None) -> str | None:
    file = folder / SIGNATURE
    signatures = files.read_bounded(file, 1 << 16).decode(errors="replace").splitlines() if file.exists() else []
    signer = keys.signer(data, signatures, [public_key] if public_key else nix.trusted_keys())
    if public_key and signer is None:
        name = public_key.partition(":")[0]
        what = f"{folder / INDEX} is not signed by {shown(name)}" if signatures else f"{folder} is not signed"
        raise error(f"{what}: nothing of it was written. Bring the bundle again, or name its key", code="signature")
    return signer


def _is_flakes(name: str) -> bool:
    return name.startswith(f"{FLAKE}/") and is_own(name)


def content(bundle: Bundle) -> Unpacked:
    """All of a bundle but the NARs' bytes, read once. Raises AikitError, which names all that is lacking or otherwise."""
    found: list[Diagnostic] = []
    left = MAX_BYTES

    def named(name: str) -> bytes:
        nonlocal left
        data = files.read_bounded(bundle.folder / name, min(left, NARINFO_BYTES) if "/" not in name else left)
        left -= len(data)
        if hashlib.sha256(data).hexdigest() != bundle.index.files[name]:
            raise ValueError(f"{name} has another sha256 than the index says")
        return data

    def taken(called: str, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (AikitError, ValueError, OSError) as bad:
            found.append(_damaged(called, bad))
            return b""

    flake = {name: taken(f"{FLAKE}/{name}", partial(named, f"{FLAKE}/{name}")) for name in bundle.flake}
    cache = {
        item.narinfo: taken(item.name, lambda item=item: _described(bundle, item, named(item.narinfo)))  # type: ignore[misc]
        for item in bundle.index.paths
    }
    cache[CACHE] = taken(CACHE, partial(named, CACHE))
    if found:
        raise AikitError(*found)
    return Unpacked(cache, flake)


def _damaged(name: str, problem: object) -> Diagnostic:
    what = problem.diagnostics[0].message if isinstance(problem, AikitError) else problem
    if isinstance(problem, OSError):
        what = f"{problem.filename}: {files.reason(problem)}"
    return Diagnostic(Severity.ERROR, "bundle", f"the bundle's {shown(name)} is damaged: {what}: bring it again")


def _described(bundle: Bundle, item: Item, content: bytes) -> bytes:
    """What Nix is told of a store path, of what the cache says. Raises ValueError and OSError."""
    said = narinfo(content)
    if (said["StorePath"], said["NarHash"], said["NarSize"]) != (item.path, item.nar_hash, str(item.nar_size)):
        raise ValueError(f"{item.narinfo} says otherwise than the index")
    if said["URL"] not in bundle.index.files:
        raise ValueError(f"the index does not name {said['URL']}")
    if item.kind is not PathKind.BUILT and not _is_fixed(item, said):
        raise ValueError(f"no hash in {item.narinfo} fixes its bytes")
    size = (bundle.folder / said["URL"]).stat().st_size
    if str(size) != said["FileSize"]:
        raise ValueError(f"{said['URL']} has {size} bytes, not {said['FileSize']}")
    lines = [f"{field}: {value}" for field, value in said.items() if value and field not in ("Sig", "References")]
    signatures = [f"Sig: {signature}" for signature in said["Sig"].splitlines()]
    return "\n".join([*lines, f"References: {said['References']}", *signatures, ""]).encode()


def _is_fixed(item: Item, said: Mapping[str, str]) -> bool:
    """Whether a store path follows from its bytes: Nix compares them with the content address, which makes the path."""
    return not said["References"] and str(store.addressed(said["CA"], item.name)) == item.path


def bring(bundle: Bundle, content: Unpacked, public_key: str | None = None) -> int:
    """Import a bundle's store paths by Nix, which checks every hash; the number of those that were not there.

    What was built is taken only from a bundle that a trusted key signed. Raises AikitError, which names what is damaged;
    what was imported before is whole, and stays.
    """
    folder = plain(bundle.folder)
    missing = nix.invalid(item.path for item in bundle.index.paths)
    unsigned = [item for item in bundle.index.paths if item.kind is PathKind.BUILT and item.path in missing]
    if unsigned and not bundle.signer:
        raise error(
            f"{bundle.folder} holds what was built elsewhere ({unsigned[0].name}), without the signature of a key that this"
            " Nix trusts: name the key with --public-key",
            code="signature",
        )
    options = ["--option", "extra-trusted-public-keys", public_key] if public_key else []
    with files.scratch() as scratch:
        for name, text in content.cache.items():
            (scratch / name).write_bytes(text)
        (scratch / "nar").symlink_to(folder / "nar")
        try:
            for some in nix.chunks(missing):
                nix.run("copy", *options, "--from", f"file://{plain(scratch)}", *some)
        except AikitError as failed:
            still = set(nix.invalid(missing))
            lacking = [each for each in bundle.index.paths if each.path in still]
            if flipped := [_damaged(each.name, what) for each in lacking for what in _read(bundle, content, each)]:
                raise AikitError(*flipped) from None
            said = failed.diagnostics[0].message
            raise error(f"{bundle.folder} was imported in part only, run it again: {said}") from None
    return len(missing)


def _read(bundle: Bundle, content: Unpacked, item: Item) -> Iterator[str]:
    """Whether a file of the cache has the hash that the index says."""
    url = narinfo(content.cache[item.narinfo])["URL"]
    with files.open_regular(bundle.folder / url) as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != bundle.index.files[url]:
            yield f"{url} has another sha256 than the index says"


def write_flake(content: Unpacked, output: Path) -> None:
    """The flake of a bundle as a folder that is new, empty, or has nothing but files of it. Raises AikitError.

    Each file is written whole or not at all, flake.nix last: what a killed run left is completed by the next.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in output.rglob("*"):
            name = str(path.relative_to(output))
            if (path.is_symlink() or not path.is_dir()) and not path.name.startswith(files.TEMPORARY):
                ours = content.flake.get(name)
                if path.is_symlink() or ours is None or files.read_bounded(path, MAX_BYTES) != ours:
                    raise error(f"{output} is not empty ({shown(name)} is not the bundle's): name a new folder")
        for name in sorted(content.flake, key=lambda name: (name == "flake.nix", name)):
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(output / name, content.flake[name])
    except OSError as failed:
        raise files.cannot_write(output, failed) from None
