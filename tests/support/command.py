"""Run the command line as a user does: in a process of its own."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path


def aikit_nix(
    *args: str | Path, cwd: Path, env: dict[str, str] | None = None, limits: tuple[int, int] | None = None
) -> subprocess.CompletedProcess[str]:
    """`aikit-nix ARGS` in a folder; `env` replaces the environment. Its exit status is not checked.

    `limits` are bytes of memory and seconds of CPU time: a process that wants more fails or is killed.
    """
    argv = [sys.executable, "-m", "aikit_nix.cli", *map(str, args)]

    def limit() -> None:
        if limits:
            memory, seconds = limits
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    return subprocess.run(argv, cwd=cwd, env=env, preexec_fn=limit, capture_output=True, text=True, check=False)


def on_path(folder: Path) -> dict[str, str]:
    """An environment in which a shell finds `aikit-nix`, by a program in a folder that need not be there yet."""
    folder.mkdir(exist_ok=True)
    program = folder / "aikit-nix"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m aikit_nix.cli "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
