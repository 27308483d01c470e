"""Docker's daemon with a storage and a socket of its own, and no network for containers but the machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing() -> str | None:
    """Why there can be no daemon here, or None."""
    for program, package in {"dockerd": "docker.io", "docker": "docker.io", "runc": "runc"}.items():
        if not shutil.which(program):
            return f"`{program}` is missing (Debian package {package})"
    return None if os.geteuid() == 0 else "dockerd wants to be started by root"


@contextmanager
def serve(driver: str = "vfs") -> Iterator[dict[str, str]]:
    """A running daemon; yields the environment in which docker and ctr find it. Raises RuntimeError where it does not start."""
    with tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        folder = Path(name)
        socket = f"unix://{folder}/sock"
        argv = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--host", socket]
        argv += ["--pidfile", f"{folder}/pid", "--storage-driver", driver, "--bridge", "none", "--iptables=false"]
        env = {"DOCKER_HOST": socket, "CONTAINERD_ADDRESS": f"{folder}/exec/containerd/containerd.sock"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            for _ in range(200):
                argv = ["docker", "version"]
                if not subprocess.run(argv, env={**os.environ, **env}, capture_output=True, check=False).returncode:
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"dockerd does not start here: {(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield env
        finally:
            process.terminate()
            process.wait()
            # It leaves the network namespace of containers without one mounted
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in [mount for mount in mounts if mount.startswith(f"{folder}/")]:
                subprocess.run(["umount", mount], check=False)
