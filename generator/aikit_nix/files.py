"""Files that are whole or not there, and where this program keeps its own."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """Where this program keeps what it can do without."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aikit-nix"


def write_whole(file: Path, data: bytes, mode: int = 0o644) -> None:
    """The file has these bytes, or what it had before, even if the power fails. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".aikit-nix-")
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(data)
            new.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(name, file)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """What was renamed in a folder stays so if the power fails. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
