"""The bytes of an image's layers, wherever they lie, and whatever a registry says of them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.image import blobs, layout
from aikit_nix.registry.manifest import Manifest
from aikit_nix.registry.reference import digest_of
from support import layouts
from support.fake_registry import FakeRegistry
from support.pushes import MIB, PATH, send

pytestmark = pytest.mark.usefixtures("own_folders")

DIGEST = "sha256:" + "1" * 64


def layers(target: str | Path) -> list[bytes | None]:
    """What each layer's blocks are together; the last first, as they may be read in any order."""
    with Client() as client, blobs.opened(str(target), client, architecture="amd64") as found:
        read = [found.blocks(index) for index in reversed(range(len(found.image.layers)))]
        return [None if each is None else b"".join(each) for each in reversed(read)]


def test_the_same_bytes_from_everywhere(fake: FakeRegistry, tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {PATH: os.urandom(3 * MIB)}, blobs=True)
    image = layout.read_layout(folder)
    found = layers(folder)
    assert [digest_of(content or b"") for content in found] == [layer.digest for layer in image.layers]
    assert layers(layouts.archive(folder, tmp_path / "image.tar")) == found
    send(folder, f"{fake.address}/a/b:1")
    assert layers(f"{fake.address}/a/b:1") == found
    assert layers(layouts.make(tmp_path / "thin", {PATH: b"x"}))[0] is None  # the model is not here


def test_a_packed_archive_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {PATH: os.urandom(3 * MIB)}, blobs=True)
    archive = layouts.archive(folder, tmp_path / "image.tar").read_bytes()
    packed = gzip.compress(archive)
    (tmp_path / "image.tar.gz").write_bytes(packed)
    assert layers(tmp_path / "image.tar.gz") == layers(folder)
    no_block = gzip.compress(archive[: 2 * MIB]) + b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x07" + bytes(100)
    for damaged in (packed[:-100_000], packed[:-1000] + bytes(1000), no_block):
        (tmp_path / "image.tar.gz").write_bytes(damaged)
        with pytest.raises(AikitError, match=r"image\.tar\.gz"):
            layers(tmp_path / "image.tar.gz")


def test_linked_layers_of_docker_save_are_read(tmp_path: Path) -> None:
    content = layouts.layer(("x", b"1"))
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(content)] * 2}}).encode()
    listed = json.dumps([{"Config": "c", "Layers": ["a/layer.tar", "b/layer.tar"]}]).encode()
    (tmp_path / "image.tar").write_bytes(
        layouts.layer(
            ("a/layer.tar", content), ("b/layer.tar", "->../a/layer.tar"), ("c", config), ("manifest.json", listed)
        )
    )
    assert layers(tmp_path / "image.tar") == [content, content]


def test_a_layer_that_cannot_be_read_to_its_end_is_an_error(fake: FakeRegistry, tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {}, blobs=True)
    send(folder, f"{fake.address}/a/b:1")
    (layer,) = layout.read_layout(folder).layers
    del fake.blobs["a/b", layer.digest]
    with pytest.raises(AikitError, match=f"{fake.address}/a/b has no {layer.digest}"):
        layers(f"{fake.address}/a/b:1")
    blob = layout.blob_path(folder, layer.digest)
    blob.unlink()
    blob.mkdir()
    with pytest.raises(AikitError, match="it is a folder, not a regular file"):
        layers(folder)


def test_what_is_no_image_is_refused(fake: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(AikitError, match=r"an OCI layout is a folder with an index.json in it"):
        layers(tmp_path)
    for manifest in (b"{}", b'{"config": 1}', b'{"config": {"digest": "sha256:../x"}}', b"[]"):
        fake.manifests["a/b", "1"] = manifest
        with pytest.raises(AikitError):
            layers(f"{fake.address}/a/b:1")
    (tmp_path / "file").write_text("no archive")
    with pytest.raises(AikitError, match="is no image that can be read"):
        layers(tmp_path / "file")


def chosen(entries: Any, architecture: str | None = "amd64") -> str:
    return blobs.chosen(Manifest("", "", b"", {"manifests": entries}), "it", architecture)


def entry(architecture: Any, os: str = "linux", digest: Any = DIGEST) -> dict[str, Any]:
    return {"digest": digest, "platform": {"os": os, "architecture": architecture}}


def test_of_an_index_the_image_for_an_architecture_is_meant() -> None:
    other = "sha256:" + "2" * 64
    both = [entry("arm64", digest=other), entry("amd64")]
    assert (chosen(both), chosen(both, "arm64")) == (DIGEST, other)
    assert chosen([entry("arm64"), entry("amd64", os="windows")]) == DIGEST  # there is but one
    assert chosen([entry("amd64"), entry("unknown", os="unknown")], None) == DIGEST  # BuildKit's attestations


@pytest.mark.parametrize(
    "entries",
    [
        [],
        None,
        5,
        "text",
        {"a": 1},
        [1],
        [{"digest": DIGEST}],
        [{"digest": DIGEST, "platform": "linux/amd64"}],
        [{"digest": DIGEST, "platform": ["linux"]}],
        [entry("arm64"), entry("riscv64")],
        [entry("amd64", digest="sha256:../../x")],
        [entry("amd64", digest=None)],
        [entry("arm64\x1b[2J"), entry(["amd64"])],
    ],
    ids=range(13),
)
def test_an_index_without_such_an_image_is_refused(entries: Any) -> None:
    with pytest.raises(AikitError, match=r"^error: it has images for .*, none for amd64"):
        chosen(entries)


def test_two_images_for_one_architecture_are_none() -> None:
    """Skopeo takes the first, others the last."""
    for entries in (
        [entry("amd64")] * 2,
        [entry("arm64"), entry("amd64"), entry("amd64", digest="sha256:" + "2" * 64)],
        *([entry(*other), entry("amd64")] for other in (["x86_64"], ["X86-64"], ["amd64", "Linux"], ["AMD64", ""])),
    ):
        with pytest.raises(AikitError, match="more than one image for amd64"):
            chosen(entries)


def test_an_index_that_readers_understand_differently_is_refused() -> None:
    """Go's JSON folds the case of keys."""
    platform = {"OS": "linux", "Architecture": "amd64"}
    for hidden in (
        {"digest": DIGEST, "platform": platform},
        {"digest": DIGEST, "Platform": entry("amd64")["platform"]},
    ):
        with pytest.raises(AikitError, match=r"it says '(OS|Platform)', which some readers take for"):
            chosen([hidden, entry("amd64")])
    with pytest.raises(AikitError, match="an index and a manifest in one"):
        blobs.chosen(Manifest("", "", b"", {"manifests": [entry("amd64")], "config": {}}), "it", "amd64")


def test_what_was_packed_is_unpacked_piece_by_piece() -> None:
    """A layer of nothing but zeros packs to a thousandth: its whole must never be in memory."""
    content = os.urandom(5000) + bytes(20 * MIB)
    packed = gzip.compress(content)
    for size in (100, len(packed)):
        pieces = list(blobs.gunzipped(iter([packed[at : at + size] for at in range(0, len(packed), size)])))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= blobs.BLOCK


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: b"",
        lambda packed: b"no gzip",
        lambda packed: packed[:-9],
        lambda packed: packed[:-8] + b"12345678",
        lambda packed: packed + b"more",
    ],
)
def test_what_is_packed_badly_is_said(spoil: Any) -> None:
    with pytest.raises(ValueError, match="is packed badly"):
        list(blobs.gunzipped(iter([spoil(gzip.compress(os.urandom(1000)))])))


def test_several_members_are_unpacked_one_after_the_other() -> None:
    packed = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")
    for size in (1, 1000):
        pieces = blobs.gunzipped(iter([packed[at : at + size] for at in range(0, len(packed), size)]))
        assert b"".join(pieces) == b"onetwo"
