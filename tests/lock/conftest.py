"""What tests of locks share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import tiny_gguf


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    """A GGUF that is in no store yet."""
    file = tiny_gguf.make(tmp_path / "made.gguf", name=os.urandom(8).hex())
    data = file.read_bytes()
    file.unlink()
    return data
