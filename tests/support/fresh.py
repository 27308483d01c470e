"""Another machine, for Nix: an empty /nix of its own, and no network but what a test gives it.

Linux namespaces do it, so Nix's programs must not lie in /nix themselves (Debian's do not).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ENTER = 'mount --bind "$0" /nix && exec "$@"'
_SMALL = 'mount -t tmpfs -o size="$0" none /nix && exec "$@"'


def problem() -> str | None:
    """Why there can be no such machine here."""
    nix = shutil.which("nix")
    if not nix or Path(nix).resolve().is_relative_to("/nix"):
        return "Nix's programs lie in /nix, which another one is to be mounted over"
    done = subprocess.run([*_unshare(network=False), "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else None


def argv(store: Path | str, command: Sequence[str | Path], *, network: bool = False) -> list[str]:
    """A command line that runs another one where `store` is /nix: a folder, or a size (`8m`) of a file system in memory."""
    script = _ENTER if isinstance(store, Path) else _SMALL
    if isinstance(store, Path):
        store.mkdir(exist_ok=True)
    return [*_unshare(network=network), "sh", "-c", script, str(store), *map(str, command)]


def run(
    store: Path | str, *command: str | Path, cwd: Path, network: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program there; its exit status is not checked."""
    where = {**os.environ, "HOME": str(cwd), **(env or {})}
    return subprocess.run(
        argv(store, command, network=network), cwd=cwd, env=where, capture_output=True, text=True, check=False
    )


def aikit_nix(
    store: Path | str, *args: str | Path, cwd: Path, network: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `aikit-nix ARGS` there."""
    return run(store, sys.executable, "-m", "aikit_nix.cli", *args, cwd=cwd, network=network, env=env)


def _unshare(*, network: bool) -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", *([] if network else ["--net"])]
