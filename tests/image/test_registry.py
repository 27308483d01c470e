"""A repository in a registry: logins, and that nothing is believed which can be checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aikit_nix.image import layout
from support import layouts
from support.fake_registry import FakeRegistry
from support.pushes import MIB, PATH, refused, send

pytestmark = pytest.mark.usefixtures("own_folders")


def test_tokens_that_expire_are_asked_for_anew(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(2 * MIB)}, blobs=True)
    fake.token_life = 3
    done = send(full, f"{fake.address}/a/b:1", chunk=256 << 10, jobs=1, mount_from=["c/d"])
    assert fake.manifests["a/b", "1"] == layout.read_layout(full).manifest
    assert done.uploaded == 3
    assert len(fake.scopes) > 4
    assert all(scopes == ["repository:a/b:pull,push", "repository:c/d:pull"] for scopes in fake.scopes)


def test_a_token_that_is_never_taken_is_the_end(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.token_life = 0
    assert "is not open to you" in refused(full, f"{fake.address}/a/b:1")
    assert len(fake.requests) < 20


def test_a_registry_that_lies_about_a_digest(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.lie = "sha256:" + "0" * 64
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/a:1")
    assert not fake.manifests
    fake.lie = None
    send(full, f"{fake.address}/a:1")
    fake.lie = "sha256:" + "0" * 64
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/a:1")  # of what is there
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/b:1")  # of what it mounts
