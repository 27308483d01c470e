"""One blob on its way: connections that break, registries that differ, bytes that are not the ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.image import layout
from support import layouts, wire
from support.fake_registry import FakeRegistry
from support.pushes import MIB, PATH, refused, send

pytestmark = pytest.mark.usefixtures("own_folders")


def test_a_cut_connection_is_taken_up_where_it_was(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(8 * MIB)}, blobs=True)
    with wire.tap(fake.address) as tap:
        fake.cuts = [0, 2 * MIB, MIB]
        send(full, f"{tap.address}/a:1", chunk=4 * MIB, jobs=1)
        assert tap.sent < 14 * MIB
    assert fake.count("POST") == 3  # no blob was begun twice
    assert fake.manifests["a", "1"]


def test_where_the_registry_forgot_it_is_begun_again(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(4 * MIB)}, blobs=True)
    fake.ranges = False
    fake.cuts = [100, 100]
    send(full, f"{fake.address}/a:1", chunk=MIB)
    assert fake.count("POST") == 5
    assert fake.manifests["a", "1"]


@pytest.mark.parametrize("change", [{"chunks": False}, {"largest": 1 << 20}, {"least": 2 << 20}])
def test_chunks_are_as_the_registry_wants_them(fake: FakeRegistry, tmp_path: Path, change: dict[str, Any]) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(5 * MIB)}, blobs=True)
    for name, value in change.items():
        setattr(fake, name, value)
    send(full, f"{fake.address}/a:1", chunk=512 << 10 if "least" in change else 16 * MIB)
    assert fake.manifests["a", "1"]
    assert fake.count("PATCH") == {"chunks": 3, "largest": 2 + 2 + 6, "least": 2 + 3}[next(iter(change))]


def test_a_lost_answer_is_no_failure(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.lose_answer = True
    send(full, f"{fake.address}/a:1", jobs=1)
    assert fake.count("POST") == 3


@pytest.mark.parametrize("chunks", [True, False])
def test_a_flipped_bit_never_reaches_the_registry(fake: FakeRegistry, tmp_path: Path, chunks: bool) -> None:
    fake.chunks = chunks
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(3 * MIB)}, blobs=True)
    image = layout.read_layout(full)
    blob = layout.blob_path(full, image.layers[0].digest).resolve()
    content = bytearray(blob.read_bytes())
    content[2 * MIB] ^= 1
    blob.write_bytes(content)
    said = refused(full, f"{fake.address}/a:1", chunk=MIB)
    assert PATH in said
    assert "damaged" in said
    assert ("a", image.layers[0].digest) not in fake.blobs
    assert not fake.manifests
    assert all(len(upload) < image.layers[0].size for upload in fake.uploads.values())
