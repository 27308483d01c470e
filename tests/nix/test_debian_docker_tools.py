"""The part of dockerTools that images of Debian's files use."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile

import pytest

from support.debian_set import DebianSet


def image(
    debian_set: DebianSet, count: int, max_layers: int, more: str = ""
) -> tuple[dict[str, object], list[list[str]]]:
    """The configuration of an image with `count` store paths besides its configuration, and its layers' files."""
    files = " ".join(f'(pkgs.writeText "file-{n}" "{"x" * n}")' for n in range(1, count + 1))
    arguments = (
        f'{{ name = "many"; tag = "1"; maxLayers = {max_layers}; {more} '
        f'config.Env = map (file: "${{file}}") [ {files} ]; '
        "extraCommands = ''mkdir -m 1777 tmp; echo hi > hi; chmod 600 hi; ln -s /nix here''; }"
    )
    script = debian_set.build(f"pkgs.dockerTools.streamLayeredImage {arguments}")
    archive = debian_set.folder / "image.tar"
    archive.write_bytes(subprocess.run([script], capture_output=True, check=True).stdout)
    layers = []
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(outer.extractfile("manifest.json") or pytest.fail())
        assert manifest["RepoTags"] == ["many:1"]
        config = json.load(outer.extractfile(manifest["Config"]) or pytest.fail())
        for name, digest in zip(manifest["Layers"], config["rootfs"]["diff_ids"], strict=True):
            content = (outer.extractfile(name) or pytest.fail()).read()
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            (debian_set.folder / "layer").write_bytes(content)
            with tarfile.open(debian_set.folder / "layer") as layer:
                members = layer.getmembers()
            assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "root", "root", 1)}
            layers.append([f"{m.name} {m.mode:o}" for m in members])
    return config, layers


def test_each_store_path_is_a_layer(debian_set: DebianSet) -> None:
    config, layers = image(debian_set, 3, 100)
    assert config["architecture"] == "amd64"
    assert config["created"] == "1970-01-01T00:00:01Z"
    assert len(layers) == 4
    for layer in layers[:-1]:
        assert layer[:2] == ["nix 755", "nix/store 755"]
        assert re.fullmatch(r"nix/store/\w{32}-file-\d 444", layer[2])
        assert len(layer) == 3
    assert layers[-1] == ["here 777", "hi 600", "tmp 1777"]


def test_the_smallest_share_a_layer_when_there_are_too_many(debian_set: DebianSet) -> None:
    _, layers = image(debian_set, 6, 4)
    names = [sorted(re.findall(r"-(file-\d)", " ".join(layer))) for layer in layers]
    assert names[0] == ["file-1", "file-2", "file-3", "file-4"]
    assert sorted(names[1:3]) == [["file-5"], ["file-6"]]
    assert names[3] == []


def test_store_paths_may_be_left_out(debian_set: DebianSet) -> None:
    _, layers = image(debian_set, 3, 100, "includeStorePaths = false;")
    assert layers == [["here 777", "hi 600", "tmp 1777"]]
