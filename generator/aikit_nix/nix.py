"""What is said to Nix: which one is there, its settings, the command that builds."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aikit_nix import process
from aikit_nix.errors import AikitError, Diagnostic, Severity, error

# For a Nix whose settings leave them off.
_NIX = ("nix", "--extra-experimental-features", "nix-command flakes")

# Debian 12's.
OLDEST = (2, 8)


def require(wanted: tuple[int, int]) -> tuple[Diagnostic, ...]:
    """Check that a Nix is on PATH that knows flakes as we use them.

    Returns a warning when it is older than `wanted`, which the flake's packages need: a flake may be written on one
    machine and built on another. Raises AikitError without Nix, or with one that can build no flake of ours.
    """
    said = version()
    digits = re.search(r"(\d+)\.(\d+)", said)
    found = (int(digits[1]), int(digits[2])) if digits else (0, 0)
    if found < OLDEST:
        raise error(f"`nix --version` says {said!r}: upgrade Nix to {_dotted(OLDEST)} or newer", code="nix-too-old")
    if found < wanted:
        text = f"these packages need Nix {_dotted(wanted)} or newer and this is {said!r}: upgrade, or build elsewhere"
        return (Diagnostic(Severity.WARNING, "nix-too-old", text),)
    return ()


def version() -> str:
    """What Nix says of itself: `nix (Nix) 2.8.0`. Raises AikitError where there is none."""
    return process.run(["nix", "--version"]).strip()


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))


def flake_reference(folder: Path) -> str:
    """How Nix is told of the flake in a folder."""
    return f"path:{folder.resolve()}"


def evaluate(reference: str, attribute: str) -> str:
    """A text that a flake's package of this system has. Raises AikitError."""
    return process.run([*_NIX, "eval", "--raw", f"{reference}#{attribute}"]).strip()


def build(reference: str, *attributes: str, env: Mapping[str, str] | None = None) -> list[Path]:
    """The store paths of a flake's packages of this system, built if they are not there. Raises AikitError."""
    wanted = [f"{reference}#{attribute}" for attribute in attributes]
    said = process.run([*_NIX, "build", "--no-link", "--json", *wanted], env=env)
    return [Path(built["outputs"]["out"]) for built in json.loads(said)]


def missing_fixed_outputs(derivation: str) -> list[str]:
    """The derivations below one whose output has a known hash and is not in the store: what has to be downloaded."""
    known = _derivations(derivation)
    outputs = {
        str(output["path"] if str(output["path"]).startswith("/") else f"/nix/store/{output['path']}"): path
        for path, content in known.items()
        for output in content["outputs"].values()
        if output.get("hash") and output.get("path")
    }
    missing: list[str] = []
    paths = sorted(outputs)
    for start in range(0, len(paths), 1000):
        argv = ["nix-store", "--check-validity", "--print-invalid", *paths[start : start + 1000]]
        missing += [outputs[path] for path in process.run(argv).split()]
    return sorted(missing)


def built_here(derivation: str) -> list[str]:
    """The derivations below one (and itself) that a program builds, whose outputs no hash fixes beforehand."""
    return sorted(
        path if path.startswith("/") else f"/nix/store/{path}"
        for path, content in _derivations(derivation).items()
        if not content.get("builder", "").startswith("builtin:")
        and not any(output.get("hash") for output in content["outputs"].values())
    )


def _derivations(derivation: str) -> dict[str, Any]:
    """All derivations below one, by their store paths; newer Nix leaves the store's own path out of them."""
    shown = json.loads(process.run([*_NIX, "show-derivation", "--recursive", derivation]))
    found: dict[str, Any] = shown.get("derivations", shown)  # newer Nix wraps them
    return found


def build_command(folder: Path, environment: Mapping[str, str]) -> str:
    """The command line that builds the flake in a folder, as a user types it on this machine."""
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    words += ["nix", "build"]
    if not {"nix-command", "flakes"} <= _experimental_features():
        words += ["--extra-experimental-features", shlex.quote("nix-command flakes")]
    if folder.resolve() == Path.cwd():
        return " ".join(words)
    place = str(folder) if folder.is_absolute() else f"./{folder}"
    if re.fullmatch(r"[A-Za-z0-9/._+-]*", place):
        return " ".join([*words, place])
    # Nix takes the path for a URL; escaped as one, Nix 2.8 does not find it
    return f"cd {shlex.quote(place)} && {' '.join(words)}"


def _experimental_features() -> set[str]:
    """The features that are on for this user; none where this Nix does not say."""
    try:
        said = process.run(["nix", "show-config"])
    except AikitError:
        return set()
    line = re.search(r"^experimental-features = (.*)$", said, re.MULTILINE)
    return set(line[1].split()) if line else set()
