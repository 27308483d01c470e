"""podman with a storage of its own, in which no container has to start."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNTIMES = [name for name in ("crun", "runc") if shutil.which(name)]


def missing() -> str | None:
    """Why podman cannot be used here, or None."""
    if not shutil.which("podman"):
        return "`podman` is missing (Debian package podman)"
    return None if RUNTIMES else "podman does nothing without `crun` or `runc` (Debian packages of these names)"


class Podman:
    """Runs podman on one storage. `driver` is vfs or overlay; `argv` what every command line begins with."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.storage = folder / "storage"
        self.argv = ["podman", f"--storage-driver={driver}", f"--root={self.storage}", f"--runroot={folder}/run"]

    def run(self, *arguments: str) -> str:
        """What it wrote to stdout. Raises CalledProcessError."""
        argv = [*self.argv, *arguments]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def storage(driver: str = "vfs") -> Iterator[Podman]:
    """An empty storage, under a short path: podman takes no run folder of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:
        yield Podman(Path(folder), driver)
