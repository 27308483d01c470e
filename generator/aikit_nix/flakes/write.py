"""Plan → the files of a flake: what they hold. folder.py puts them where they go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from aikit_nix.base import data, files, typed_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.redact import secret_key
from aikit_nix.flakes import library
from aikit_nix.flakes.choices import FILE as CHOICES
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.plan import Packages, Plan

AIKIT = "aikit"
PLAN = f"{AIKIT}/plan.json"
SEALS = f"{AIKIT}/seals.json"
_MAX_SEALS = 1 << 20
DEBIAN_LOCK = f"{AIKIT}/packages/debian/lock.json"
# What a flake reference may hold here: it is the one value that stands in Nix code.
_FLAKE_REF = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9/._~+:@?=&%-]+")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@|https?://[^/@]*@", re.IGNORECASE)


class Node(Struct):
    """What Nix' flake.lock says of an input, or of the flake itself (its `root`)."""

    inputs: Mapping[str, Any] = {}
    locked: Mapping[str, Any] = {}
    original: Mapping[str, Any] = {}


class FlakeLock(Struct):
    """Nix' flake.lock."""

    nodes: Mapping[str, Node]
    root: str


@dataclass(frozen=True)
class Files:
    """The files of a flake: paths relative to its folder → bytes. `lock` is the flake.lock for a flake that has none."""

    content: Mapping[str, bytes]
    lock: bytes | None = None


def render(plan: Plan, choices: Choices, debian_lock: bytes | None = None) -> Files:
    """All files of the plan's flake; `debian_lock` replaces the shipped lock of the Debian packages.

    Raises AikitError for a reference that cannot stand in a flake.
    """
    # Checked where they are not used, too: they stand in choices.json
    library_input = _reference(choices.input, "--input") if choices.input else None
    own_nixpkgs = _nixpkgs(choices.nixpkgs) if choices.nixpkgs else None
    content: dict[str, bytes] = {}
    if choices.input is None:
        content |= {f"{AIKIT}/{path}": text for path, text in library.files(plan).items()}
        if debian_lock:
            content[DEBIAN_LOCK] = debian_lock
    content[PLAN] = plan.to_json().encode()
    content[CHOICES] = choices.to_json().encode()
    nixpkgs, lock = None, None
    if plan.packages is Packages.NIXPKGS:
        pinned = (data.TEMPLATES / "flake.lock").read_bytes()
        nixpkgs = own_nixpkgs or _pinned_reference(pinned)
        lock = None if choices.nixpkgs or choices.input else pinned
    content["flake.nix"] = data.template("flake.nix.j2", nixpkgs=nixpkgs, library=library_input).encode()
    content[SEALS] = _seals(content)
    return Files(content, lock)


def chosen(choices: Choices) -> Files:
    """What a folder holds whose flake was not written yet, and what it will be was chosen."""
    content = {CHOICES: choices.to_json().encode()}
    return Files({**content, SEALS: _seals(content)})


def is_sealed(path: str, text: bytes, seals: Mapping[str, str]) -> bool:
    """Whether a file is as it was written: white space does not count, which formatters change."""
    return _seal(text) == seals.get(path)


def read_seals(folder: Path) -> Mapping[str, str]:
    """What the files of the flake in a folder were when they were written; nothing where no flake of ours is."""
    try:
        return typed_json.decode(files.read_bounded(folder / SEALS, _MAX_SEALS), dict[str, str])
    except (AikitError, ValueError):
        return {}


def _seals(content: Mapping[str, bytes]) -> bytes:
    return typed_json.encode({path: _seal(text) for path, text in sorted(content.items())}).encode()


def _seal(text: bytes) -> str:
    return hashlib.sha256(b"".join(text.split())).hexdigest()[:32]


def _pinned_reference(lock: bytes) -> str:
    """The branch: the revision stands in flake.lock, where `nix flake update` moves it."""
    original = typed_json.decode(lock, FlakeLock).nodes["nixpkgs"].original
    return f"github:{original['owner']}/{original['repo']}/{original['ref']}"


def _nixpkgs(given: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", given):
        return f"github:NixOS/nixpkgs/{given}"
    return _reference(given, "--nixpkgs", "a revision (40 hex digits) or ")


def _reference(given: str, option: str, also: str = "") -> str:
    if (key := secret_key(given)) or _PASSWORD.search(given):
        what = f"`{key}=`" if key else "a password"
        raise error(
            f"{option} carries {what}, which would stand in flake.nix and in the world-readable Nix store:"
            " put it into Nix's `access-tokens` or netrc-file, and give the reference without it"
        )
    if not _FLAKE_REF.fullmatch(given):
        raise error(f"{option} {given!r}: give {also}a flake reference (path:/srv/nixpkgs)")
    return given


def read_debian_lock(file: Path) -> bytes:
    """The bytes of another lock of Debian packages. Raises AikitError where it is none."""
    from aikit_nix.debian.lock import DebianLock

    return DebianLock.read(file).to_json().encode()
