"""Starts an unpacked image the way a cautious container engine would, with bubblewrap.

Read-only root, a tmpfs on /tmp, a user that is not root, no capabilities, own process and network namespaces: the server
has no network but its own loopback, and is reached through one relayed port (relay.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from aikit_nix.base import process
from aikit_nix.image import relay

_TIMEOUT = 10.0  # seconds that a server has to end by itself


def missing() -> str | None:
    """Why no image can be started on this machine, or None."""
    for program, package in (("bwrap", "bubblewrap"), ("unshare", "util-linux")):
        if not shutil.which(program):
            return f"`{program}` is missing (Debian package {package})"
    said = process.stderr([*_namespace(), *_sandbox(Path("/")), "true"]).strip()
    return f"bubblewrap cannot make a sandbox here: {said.splitlines()[-1]}" if said else None


@contextmanager
def start(
    run: Mapping[str, Any],
    root: Path,
    listener: socket.socket,
    *,
    mounts: Mapping[str, Path] | None = None,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    port: int = 8080,
    log: IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The running server of the image that was unpacked into `root`; it is stopped at the end.

    `run` is the image's own configuration of that, `mounts` are files to mount over those in `root` by their path in the
    image. Connections to `listener` get to the port that the server listens on. `arguments` come after the image's own,
    `env` is added to the image's. What the server says goes to `log`, or where our own output goes.
    """
    for mount_point in ("dev", "proc", "tmp"):  # a container engine makes these too
        (root / mount_point).mkdir(exist_ok=True)
    user, _, group = str(run.get("User") or "0").partition(":")
    argv = [*_namespace(), sys.executable, relay.__file__, str(listener.fileno()), str(port), *_sandbox(root)]
    for path, file in (mounts or {}).items():
        argv += ["--ro-bind", str(file), path]
    argv += ["--uid", user, "--gid", group or user, "--chdir", str(run.get("WorkingDir") or "/")]
    own = dict(entry.split("=", 1) for entry in run.get("Env") or () if "=" in entry)
    for name, value in {**own, **(env or {})}.items():
        argv += ["--setenv", name, value]
    argv += ["--", *(run.get("Entrypoint") or ()), *(run.get("Cmd") or ()), *arguments]
    with process.start(argv, stdout=log, stderr=log, pass_fds=[listener.fileno()], own_group=True) as server:
        try:
            yield server
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server: politely, then for good."""
    server.terminate()
    try:
        server.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _namespace() -> list[str]:
    # Root makes a network namespace outright, anybody else inside a user namespace.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net"]


def _sandbox(root: Path) -> list[str]:
    argv = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    argv += ["--die-with-parent", "--new-session", "--clearenv"]
    return [*argv, "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
