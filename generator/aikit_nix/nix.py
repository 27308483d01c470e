"""The one place that runs other programs: nix, git."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from aikit_nix.errors import AikitError, Diagnostic, Severity, error

# Debian 12's.
OLDEST = (2, 8)

_STDERR_LINES = 8


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    `env` is added to the environment. Raises AikitError when the program is missing or (with `check`) fails,
    with the last lines of its stderr.
    """
    done = _start(argv, cwd=cwd, env=env, stdin=stdin)
    if check and done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        program = Path(argv[0]).name
        raise error(f"`{program}` failed with status {done.returncode}: " + " | ".join(tail), code="subprocess")
    return done.stdout.decode(errors="replace")


def succeeds(argv: Sequence[str | Path], *, cwd: Path | None = None) -> bool:
    """Whether a program ends with status 0. Raises AikitError when it is missing."""
    return _start(argv, cwd=cwd).returncode == 0


def stderr(argv: Sequence[str | Path]) -> str:
    """What a program wrote to stderr, whether it failed or not. Raises AikitError when it is missing."""
    return _start(argv).stderr.decode(errors="replace")


def _start(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
        )
    except (FileNotFoundError, PermissionError):
        raise _missing(Path(argv[0]).name) from None


def _missing(program: str) -> AikitError:
    where = "apt-get install nix-bin, or https://nixos.org/download" if program.startswith("nix") else "install it"
    return error(f"`{program}` cannot be run: it is not on PATH ({where})", code="program-missing")


def require(wanted: tuple[int, int]) -> tuple[Diagnostic, ...]:
    """Check that a Nix is on PATH that knows flakes as we use them.

    Returns a warning when it is older than `wanted`, which the flake's packages need: a flake may be written on one
    machine and built on another. Raises AikitError without Nix, or with one that can build no flake of ours.
    """
    said = run(["nix", "--version"]).strip()
    digits = re.search(r"(\d+)\.(\d+)", said)
    found = (int(digits[1]), int(digits[2])) if digits else (0, 0)
    if found < OLDEST:
        raise error(f"`nix --version` says {said!r}: upgrade Nix to {_dotted(OLDEST)} or newer", code="nix-too-old")
    if found < wanted:
        text = f"these packages need Nix {_dotted(wanted)} or newer and this is {said!r}: upgrade, or build elsewhere"
        return (Diagnostic(Severity.WARNING, "nix-too-old", text),)
    return ()


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def build_command(folder: Path, environment: Mapping[str, str]) -> str:
    """The command line that builds the flake in a folder, as a user types it on this machine."""
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    words += ["nix", "build"]
    if not {"nix-command", "flakes"} <= _experimental_features():
        words += ["--extra-experimental-features", shlex.quote("nix-command flakes")]
    if folder.resolve() != Path.cwd():
        words.append(shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}"))
    return " ".join(words)


def _experimental_features() -> set[str]:
    """The features that are on for this user; none where this Nix does not say."""
    try:
        said = run(["nix", "show-config"])
    except AikitError:
        return set()
    line = re.search(r"^experimental-features = (.*)$", said, re.MULTILINE)
    return set(line[1].split()) if line else set()
