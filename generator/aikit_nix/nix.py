"""The one place that runs other programs: nix, git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from aikit_nix.errors import AikitError, error

_STDERR_LINES = 8


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    `env` is added to the environment. Raises AikitError when the program is missing or fails, with the last
    lines of its stderr.
    """
    program = Path(argv[0]).name
    try:
        done = subprocess.run(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise missing(program) from None
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        raise error(f"`{program}` failed with status {done.returncode}: " + " | ".join(tail), code="subprocess")
    return done.stdout.decode(errors="replace")


def missing(program: str) -> AikitError:
    """The error for a program that is not installed."""
    hint = "apt-get install nix-bin, or see https://nixos.org/download" if program.startswith("nix") else "install it"
    return error(f"`{program}` is not on PATH: {hint}", code="program-missing")


def installed(program: str) -> bool:
    """Whether the program is on PATH."""
    return shutil.which(program) is not None
