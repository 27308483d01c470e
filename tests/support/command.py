"""Run the command line as a user does: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def aikit_nix(*args: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`aikit-nix ARGS` in a folder; `env` replaces the environment. Its exit status is not checked."""
    argv = [sys.executable, "-m", "aikit_nix.cli", *map(str, args)]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
