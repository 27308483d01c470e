"""Docker-archives, which are believed as little as layouts."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aikit_nix.base import tar
from aikit_nix.base.errors import AikitError
from aikit_nix.image import archive, layout
from aikit_nix.image.layout import Image
from aikit_nix.registry.reference import digest_of
from support import forged, layouts, tars


def read(file: Path) -> Image:
    with archive.opened(file) as found:
        return found.image


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")
    whole = layouts.archive(layouts.make(tmp_path / "image", {"/models/m": b"x"}, blobs=True), tmp_path / "whole.tar")
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:2000])
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name in ("text", "cut.tar", "empty.tar"):
        with pytest.raises(AikitError, match="is no image that can be read"):
            read(tmp_path / name)


def test_sizes_below_nothing_do_not_keep_the_reader_busy(tmp_path: Path) -> None:
    """By which tarfile went back, to read the same entry for ever."""
    size = tarfile.TarInfo("x")
    size.pax_headers = {"size": "-1536"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("first"))
        archive.addfile(size)
    (tmp_path / "endless.tar").write_bytes(out.getvalue())
    with pytest.raises(AikitError, match="is no image that can be read"):
        read(tmp_path / "endless.tar")


def test_an_archive_may_link_equal_layers(tmp_path: Path) -> None:
    """`docker save` does."""
    content = layouts.layer(("x", b"1"))
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(content)] * 2}}).encode()
    listed = json.dumps([{"Config": "c", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]).encode()
    file = tmp_path / "image.tar"
    file.write_bytes(
        layouts.layer(
            ("a/layer.tar", content), ("b/layer.tar", "->../a/layer.tar"), ("c", config), ("manifest.json", listed)
        )
    )
    image = read(file)
    assert [layer.size for layer in image.layers] == [len(content)] * 2
    assert image.size == len(content)  # it is stored once
    assert (image.digest, image.name) == (None, "")
    file.write_bytes(file.read_bytes().replace(b"../a/layer.tar", b"../q/layer.tar"))
    with pytest.raises(AikitError):
        read(file)


@pytest.mark.parametrize("bomb", layouts.bombs().values(), ids=layouts.bombs())
def test_what_would_take_all_memory_is_refused(tmp_path: Path, bomb: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(bomb)
    with pytest.raises(AikitError, match=r"is no image that can be read \((a member|it ends)"):
        read(tmp_path / "image.tar")


def test_a_list_is_no_larger_for_being_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LIMIT", 1000)
    (tmp_path / "image.tar").write_bytes(layouts.layer(("large", b"[" + b" " * 1000), ("manifest.json", "->large")))
    with pytest.raises(AikitError, match=r"manifest\.json has 1.0 kB"):
        read(tmp_path / "image.tar")


def image(*more: tuple[str, bytes | str | None], listed: bytes | None = None) -> bytes:
    """A docker-archive of one layer, and what else is in it."""
    content = layouts.layer(("x", b"1"))
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(content)]}}).encode()
    listed = listed or b'[{"Config": "c", "Layers": ["l"]}]'
    return layouts.layer(("l", content), ("c", config), *more, ("manifest.json", listed))


def test_layers_are_read_side_by_side_packed_or_not(tmp_path: Path) -> None:
    for name, data in (("plain.tar", image()), ("packed.tar", gzip.compress(image()))):
        (tmp_path / name).write_bytes(data)
        with archive.opened(tmp_path / name) as found:
            pair = zip(found.blocks(0), found.blocks(0), strict=True)
            assert layouts.layer(("x", b"1")) == b"".join(one for one, other in pair if one == other)


def test_a_packed_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a layer: 40 of 25 MB in an archive of 1 MB cost as many seconds."""
    content = bytes(1 << 20)
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(content)] * 40}}).encode()
    listed = json.dumps([{"Config": "c", "Layers": ["l"] * 40}]).encode()
    data = layouts.layer(("l", content), ("c", config), ("manifest.json", listed))
    (tmp_path / "image.tar").write_bytes(gzip.compress(data, 1))
    unpacked: list[int] = []

    def counted(self: gzip.GzipFile, size: int = -1) -> bytes:
        unpacked.append(len(block := read_of_gzip(self, size)))
        return block

    read_of_gzip = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with archive.opened(tmp_path / "image.tar") as found:
        assert [b"".join(found.blocks(index)) for index in range(40)] == [content] * 40
    assert sum(unpacked) == len(data)


def test_what_unpacks_to_more_than_an_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_FREE_BYTES", 1 << 20)
    (tmp_path / "image.tar").write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(AikitError, match="unpacks to far more than any image"):
        read(tmp_path / "image.tar")


@pytest.mark.parametrize(
    "data",
    [
        image(listed=b'[{"config": "c", "Layers": ["l"]}]'),
        image(listed=b'[{"Config": "c", "Config": "c", "Layers": ["l"]}]'),
        image(listed=b'[{"Config": "c", "Layers": ["l"], "layers": []}]'),
        image(listed=b'[{"Config": "c", "Layers": []}]'),
        image(listed=b'[{"Config": "c", "Layers": ["l"], "RepoTagr": ["a:b"]}]'),
        image(listed=b'[{"Config": "c", "Layers": ["c"]}, {"Config": "c", "Layers": ["c"]}]'),
        image(("manifest.json", b"[]")),
        image(("./manifest.json", b"[]")),
        image(("/manifest.json", b"[]")),
        image(("/index.json", b'{"manifests": []}')),
        image(("../index.json", b'{"manifests": []}')),
        image(("a", "->."), ("a/manifest.json", b"[]")),
        image(("index.json", b'{"manifests": []}')),
        image(("index.json", b'{"manifests": [{"digest": "sha256:' + b"1" * 64 + b'", "size": 1}]}')),
        image()[:-512] + tars.file("manifest.json", b"[]") + bytes(1024),
    ],
)
def test_what_readers_understand_differently_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(data)
    with pytest.raises(AikitError):
        read(tmp_path / "image.tar")


def test_an_index_has_the_same_layers_under_the_same_name(tmp_path: Path) -> None:
    """podman reads it first: the same configuration may stand above other layers, and have another name."""
    folder = layouts.make(tmp_path / "image", {"/models/m": b"x"}, blobs=True)
    docker = layouts.archive(folder, tmp_path / "docker.tar").read_bytes().rstrip(b"\0")

    def add(to: Path, change: Callable[[forged.Parts], object]) -> Path:
        with forged.changed(folder, tmp_path / f"{to.name}-parts") as parts:
            change(parts)
        also = [("index.json", (parts.folder / "index.json").read_bytes())]
        also += [(f"blobs/sha256/{blob.name}", blob.read_bytes()) for blob in (parts.folder / "blobs/sha256").iterdir()]
        to.write_bytes(docker + bytes(-len(docker) % 512) + layouts.layer(*also))
        return to

    def other_layer(parts: forged.Parts) -> None:
        parts.manifest["layers"][1] |= parts.blob(gzip.compress(forged.EVIL)) | {"mediaType": f"{layout.LAYER}+gzip"}

    def other_name(parts: forged.Parts) -> None:
        parts.index["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/library/nginx:latest"

    with pytest.raises(AikitError, match="about two images"):
        read(add(tmp_path / "layer.tar", other_layer))
    assert read(add(tmp_path / "name.tar", other_name)).names == ("llama:avx2", "docker.io/library/nginx:latest")


def test_dockers_newer_archives_are_an_oci_layout_too(tmp_path: Path) -> None:
    """Which containerd reads first: it has to be about the same image."""
    folder = layouts.make(tmp_path / "image", {"/models/m": b"x"}, blobs=True)
    other = layouts.make(tmp_path / "other", {"/models/m": b"y"}, blobs=True)
    docker = layouts.archive(folder, tmp_path / "docker.tar").read_bytes().rstrip(b"\0")
    for oci, wanted in ((folder, True), (other, False)):
        also = [("index.json", (oci / "index.json").read_bytes())]
        also += [(f"blobs/sha256/{blob.name}", blob.read_bytes()) for blob in (oci / "blobs/sha256").iterdir()]
        (tmp_path / "both.tar").write_bytes(docker + bytes(-len(docker) % 512) + layouts.layer(*also))
        if wanted:
            assert read(tmp_path / "both.tar").name == "llama:avx2"
        else:
            with pytest.raises(AikitError, match="about two images"):
                read(tmp_path / "both.tar")
