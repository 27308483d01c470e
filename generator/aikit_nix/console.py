"""How the command line speaks to people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from aikit_nix.errors import Diagnostic


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to stderr: coloured on a terminal, unless NO_COLOR is set."""
    found = list(diagnostics)
    if found:
        from aikit_nix import render

        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        sys.stderr.write(render.text(found, colour=colour))
