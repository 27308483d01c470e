"""What tests of the Nix library share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from aikit_nix import data, debian
from support import debian_lock
from support.library import Library


@pytest.fixture(scope="module")
def library(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in debian.build_environment().items():
            patch.setenv(name, value)
        shutil.copytree(data.NIX, folder / "nix")
        if lock := debian_lock.usable(folder, print):
            shutil.copy(lock, folder / "nix/packages/debian/lock.json")
        yield Library(folder / "nix")
