"""Bytes that are in no Nix store yet."""

from __future__ import annotations

import os
from pathlib import Path

NEW = b"new" + os.urandom(16)  # in no store yet; the first letters keep chance from writing another format's


def content(folder: Path, size: int) -> bytes:
    """Bytes that no other run has."""
    unit = NEW + f"{folder}".encode()
    return (unit * (size // len(unit) + 1))[:size]


def left_in_store(name: str) -> set[str]:
    return {entry.name for entry in Path("/nix/store").iterdir() if entry.name.endswith(name)}
