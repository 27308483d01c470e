"""`aikit-nix inspect`: the same image from wherever it lies, for programs and for people."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from aikit_nix.base import data
from support import fake_registry, layouts, pushes
from support.command import aikit_nix

PATH = "/models/a/tiny.gguf"
EVIL = "\x1b]0;pwned\x07\u202e"


def inspect(what: str | Path, *options: str, cwd: Path) -> Any:
    done = aikit_nix("inspect", what, "--format", "json", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def archive(folder: Path, model: bytes, to: Path) -> Path:
    """The docker-archive of a layout that layouts.make made."""
    (folder.parent / "tiny.gguf").write_bytes(model)
    spec = {
        "layout": str(folder),
        "name": "me/tiny:avx2",
        "models": [{"path": PATH, "file": str(folder.parent / "tiny.gguf")}],
    }
    (folder.parent / "stream.json").write_text(json.dumps(spec))
    argv = [sys.executable, "-IB", str(data.NIX / "image/docker_archive.py"), str(folder.parent / "stream.json")]
    with to.open("wb") as file:
        subprocess.run(argv, stdout=file, check=True)
    return to


def test_the_same_from_a_layout_an_archive_and_a_registry(tmp_path: Path) -> None:
    model = b"weights" * 1000
    thin = layouts.make(tmp_path / "thin", {PATH: model})
    said = inspect(thin, cwd=tmp_path)
    assert said["names"] == ["docker.io/me/tiny:avx2"]
    assert said["platform"] == "linux/amd64"
    # What the model's layer has is no size of the model
    assert said["models"] == [{"path": PATH, "sha256": layouts.sha256(model)}]
    assert [layer["contents"] for layer in said["layers"]] == [PATH, "texts"]
    assert said["run"]["User"] == "65532:65532"

    tar = archive(thin, model, tmp_path / "image.tar")
    assert inspect(tar, cwd=tmp_path) == said | {"digest": None, "names": ["me/tiny:avx2"]}

    full = layouts.make(tmp_path / "full", {PATH: model}, blobs=True)
    with fake_registry.serve() as server:
        name = f"{server.address}/a/tiny:1"
        pushes.send(full, name)
        assert inspect(name, cwd=tmp_path) == said | {"names": [name]}
        by_digest = f"{server.address}/a/tiny@{said['digest']}"
        assert inspect(by_digest, cwd=tmp_path)["digest"] == said["digest"]


def test_people_see_a_picture(tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {PATH: bytes(5_000_000), "/models/b": b"x"}, name="me/tiny")
    done = aikit_nix("inspect", folder, "--svg", "layers.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.endswith(f"█  {PATH}")]
    assert line.count("█") == 24
    assert "5.0 MB" in line
    drawn = ElementTree.parse(tmp_path / "layers.svg").getroot()
    boxes = [float(box.attrib["height"]) for box in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(boxes) == 3
    assert boxes[-1] == max(boxes)  # a model, at the bottom


def test_nothing_in_an_image_steers_the_terminal(tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {f"/models/{EVIL}": b"x"}, name="x")
    done = aikit_nix("inspect", folder, "--svg", "layers.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\\x1b]0;pwned" in done.stdout
    assert not set(EVIL) & {"\x1b", "\x07", "\u202e"} & set(done.stdout)
    ElementTree.parse(tmp_path / "layers.svg")
