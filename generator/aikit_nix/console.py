"""How the command line speaks to people: diagnostics, and with --verbose what is run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from aikit_nix.errors import Diagnostic

# -1 with --quiet: errors and warnings only; 1 with --verbose: each command and each request too.
verbosity = 0


def command(argv: Sequence[str | Path]) -> None:
    """Show a program that is about to run."""
    if verbosity > 0:
        print("$", shlex.join(map(str, argv)), file=sys.stderr, flush=True)  # noqa: T201


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to stderr: coloured on a terminal, unless NO_COLOR is set."""
    found = list(diagnostics)
    if found:
        from aikit_nix import render

        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        sys.stderr.write(render.text(found, colour=colour))
