"""How the command line speaks to people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from enum import IntEnum

from aikit_nix.errors import Diagnostic


class Verbosity(IntEnum):
    """How much is said on stderr beside errors."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


# What the user asked for; a command sets it before it does anything.
verbosity = Verbosity.NORMAL


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to stderr: coloured on a terminal, unless NO_COLOR is set."""
    found = list(diagnostics)
    if found:
        from aikit_nix import render

        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        sys.stderr.write(render.text(found, colour=colour))


def say(line: str) -> None:
    """One line on stderr, unless the user wants quiet."""
    if verbosity >= Verbosity.NORMAL:
        _write(line)


def trace(line: str) -> None:
    """A request or a command that was run, shown as `$ LINE` with --verbose. The caller has blanked its secrets."""
    if verbosity >= Verbosity.VERBOSE:
        _write(f"$ {line}")


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
