"""What tests of the Debian package set share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aikit_nix.base import data
from aikit_nix.debian import lock as debian
from support import debian_lock
from support.debian_set import DebianSet


@pytest.fixture(scope="module")
def usable_lock(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lock whose files can be had; those of CPU images are in the store."""
    return debian_lock.usable(tmp_path_factory.mktemp("lock"), print, None) or debian.LOCK


@pytest.fixture
def debian_set(usable_lock: Path, tmp_path: Path) -> DebianSet:
    shutil.copytree(data.NIX, tmp_path / "nix")
    folder = tmp_path / "nix/packages/debian"
    shutil.copy(usable_lock, folder / "lock.json")
    return DebianSet(folder)
