"""Layers laid over each other in a folder, and nothing outside of it, whatever they say."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.image import layout, rootfs
from aikit_nix.image.layout import Image, Layer
from aikit_nix.registry.reference import digest_of
from support import layouts
from support.layouts import layer


@pytest.mark.usefixtures("nix")
def test_models_stay_in_the_store(tmp_path: Path) -> None:
    content = os.urandom(5000)
    file = layouts.add_to_store(tmp_path, "tiny.gguf", content)
    thin = layouts.make(tmp_path / "thin", {"/models/a/tiny.gguf": content})
    models = rootfs.make(layout.read_layout(thin), tmp_path / "root")
    assert models == {"/models/a/tiny.gguf": file}
    assert (tmp_path / "root/models/a/tiny.gguf").stat().st_size == 0
    assert (tmp_path / "root/config.yaml").read_bytes() == b"text"


def test_a_model_of_a_whole_layout_is_unpacked(tmp_path: Path) -> None:
    content = os.urandom(5000)
    full = layouts.make(tmp_path / "full", {"/models/a/tiny.gguf": content}, blobs=True)
    assert rootfs.make(layout.read_layout(full), tmp_path / "root") == {}
    assert (tmp_path / "root/models/a/tiny.gguf").read_bytes() == content


def test_a_damaged_layer_is_not_run(tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {"/models/tiny.gguf": bytes(5000)}, blobs=True)
    image = layout.read_layout(full)
    blob = layout.blob_path(full, image.layers[0].digest).resolve()
    content = bytearray(blob.read_bytes())
    content[3000] ^= 1
    blob.write_bytes(content)
    with pytest.raises(AikitError, match="other bytes than its digest says"):
        rootfs.make(image, tmp_path / "root")


def lay(folder: Path, *tars: bytes) -> Path:
    """The folder that an image of these layers becomes; there is a file beside it."""
    layers = []
    for content in tars:
        digest = digest_of(content)
        blob = layout.blob_path(folder / "image", digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        layers.append(Layer(digest, len(content), "application/vnd.oci.image.layer.v1.tar", digest, ""))
    (folder / "ours").write_text("ours")
    root = folder / "root"
    rootfs.make(Image(b"", None, "", 0, {}, tuple(layers), (), folder / "image"), root)
    return root


def test_layers_lie_over_each_other(tmp_path: Path) -> None:
    below = layer(("d", None), ("d/gone", b"1"), ("d/old", b"2"), ("e", None), ("e/f", b"3"), ("./nix/store/x", b"4"))
    above = layer(("d/.wh.gone", b""), ("d/old", b"5"), ("e/.wh..wh..opq", b""), ("l", "->d/old"), ("h", "=d/old"))
    root = lay(tmp_path, below, above)
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert files == {"d/old": b"5", "l": b"5", "h": b"5", "nix/store/x": b"4"}
    assert list((root / "e").iterdir()) == []  # what hides its content hides not the folder


def test_a_layer_may_hide_all_that_is_below_it(tmp_path: Path) -> None:
    root = lay(tmp_path, layer(("a", b"1"), ("d/b", b"2")), layer((".wh..wh..opq", b"")))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("../ours", b"evil")], "leaves the image"),
        ([("a/../../ours", b"evil")], "leaves the image"),
        ([("h", "=../ours")], "leaves the image"),
        ([("a", "->.."), ("a/ours", b"evil")], "through a symlink"),
        ([("a", "->/"), ("a/x", b"evil")], "through a symlink"),
        ([("a", "->.."), ("a/.wh.ours", b"")], "through a symlink"),
        ([("a", "->.."), ("h", "=a/ours")], "through a symlink"),
        # what they hide would be the folder that they are in, or the one above it
        ([("d/.wh..", b"")], "hides no file"),
        ([(".wh...", b"")], "hides no file"),
        ([("d/.wh.", b"")], "hides no file"),
        ([("ü\0b", b"")], "cannot be unpacked"),
    ],
)
def test_nothing_outside_of_the_folder_is_touched(
    tmp_path: Path, entries: list[tuple[str, bytes | str | None]], said: str
) -> None:
    with pytest.raises(AikitError, match=said):
        lay(tmp_path, layer(*entries))
    assert (tmp_path / "ours").read_text() == "ours"
    assert (tmp_path / "root").is_dir()


def test_a_later_entry_takes_the_place_of_a_link_and_not_of_its_target(tmp_path: Path) -> None:
    root = lay(tmp_path, layer(("l", "->../ours"), ("h", b"1"), ("i", "=h")), layer(("l", b"2"), ("i", b"3")))
    assert (tmp_path / "ours").read_text() == "ours"
    assert [(root / name).read_bytes() for name in "lhi"] == [b"2", b"1", b"3"]


@pytest.mark.parametrize("path", ["/models/l", "/models/\0/l", "/models/\ud800/l", "/", "/models/l/../../../ours"])
def test_a_models_place_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The place is what the image's history says; a layer below it may have put a link there."""
    content = layer(("models/l", "->../../theirs"))
    digest = digest_of(content)
    blob = layout.blob_path(tmp_path, digest)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    media_type = "application/vnd.oci.image.layer.v1.tar"
    layers = (Layer(digest, 1, media_type, digest, ""), Layer(digest, 1, media_type, digest, f"model layer: {path}"))
    monkeypatch.setattr(Image, "model_file", lambda *_: blob)
    image = Image(b"", None, "", 0, {}, layers, (), tmp_path)
    if path == "/models/l":
        assert rootfs.make(image, tmp_path / "root") == {path: blob}
        assert not (tmp_path / "root/models/l").is_symlink()
    else:
        with pytest.raises(AikitError, match="cannot be placed"):
            rootfs.make(image, tmp_path / "root")
    assert not (tmp_path / "theirs").exists()


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A device or a pipe; a layer that is not there; one that is packed."""
    pipe = tarfile.TarInfo("p")
    pipe.type = tarfile.FIFOTYPE
    with pytest.raises(AikitError, match="'p' is a device or a pipe"):
        lay(tmp_path, pipe.tobuf() + bytes(1024))
    absent = Layer("sha256:" + "0" * 64, 1, "", "sha256:" + "0" * 64, "")
    packed = Layer(digest_of(b"x"), 1, "", "sha256:" + "0" * 64, "")
    layout.blob_path(tmp_path / "image", packed.digest).write_bytes(b"x")
    for each, said in ((absent, "is not on this machine"), (packed, "is packed: unpack the image with skopeo")):
        with pytest.raises(AikitError, match=said):
            rootfs.make(Image(b"", None, "", 0, {}, (each,), (), tmp_path / "image"), tmp_path / said)


@pytest.mark.parametrize("bomb", layouts.bombs().values(), ids=layouts.bombs())
def test_what_would_take_all_memory_is_refused(tmp_path: Path, bomb: bytes) -> None:
    with pytest.raises(AikitError, match="cannot be unpacked: a member"):
        lay(tmp_path, bomb)


@pytest.mark.parametrize(
    "entries",
    [
        [("a", "->b"), ("b", "->a"), ("a/x", b"1")],
        [("/".join("a" * count), None) for count in range(1, 300)],
        [("l", "->" + "/".join("a" * 150)), ("/".join("a" * 150), None), ("l/" + "/".join("b" * 150), None)],
    ],
    ids=["links in a circle", "folders without an end", "and through a link"],
)
def test_what_nobody_could_remove_again_is_refused(
    tmp_path: Path, entries: list[tuple[str, bytes | str | None]]
) -> None:
    """Python 3.11 raises RuntimeError for the first, and RecursionError when it removes the others."""
    with pytest.raises(AikitError, match="cannot be unpacked"):
        lay(tmp_path, layer(*entries))


def test_a_mode_may_be_any_number_above_nothing(tmp_path: Path) -> None:
    mode = b"\x80" + b"\xff" * 7
    content = bytearray(layer(("d", None), ("d/f", b"1")))
    for at in (0, 512):
        content[at + 100 : at + 108] = mode
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    assert (lay(tmp_path, bytes(content)) / "d/f").read_bytes() == b"1"
