"""`aikit-nix inspect` and `diff`: the same image from wherever it lies, and what is no image."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from aikit_nix import data
from aikit_nix.errors import AikitError
from aikit_nix.image import diff, find, layout, push, reference
from support import fake_registry, layouts
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
    assert said["models"] == [{"path": PATH, "sha256": layouts.sha256(model), "size": said["layers"][0]["size"]}]
    assert [layer["contents"] for layer in said["layers"]] == [PATH, "texts"]
    assert said["run"]["User"] == "65532:65532"

    tar = archive(thin, model, tmp_path / "image.tar")
    assert inspect(tar, cwd=tmp_path) == said | {"digest": None, "names": ["me/tiny:avx2"]}

    full = layouts.make(tmp_path / "full", {PATH: model}, blobs=True)
    with fake_registry.serve() as server:
        name = f"{server.address}/a/tiny:1"
        push.push(layout.read_layout(full), full, reference.parse(name))
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: (image / "index.json").write_text("{"), "is no image that can be read"),
        (lambda image: (image / "index.json").write_text('{"manifests": []}'), "holds 0 images"),
        (lambda image: (image / "index.json").write_text('{"manifests": [{"digest": "../x"}]}'), "is no sha256 digest"),
        (lambda image: (image / "index.json").write_text("[" * 100_000), "is no image that can be read"),
        (
            lambda image: next((image / "blobs/sha256").iterdir()).write_text("other"),
            "other bytes than its digest says",
        ),
        (lambda image: next((image / "blobs/sha256").iterdir()).unlink(), "no such file"),
    ],
)
def test_what_is_no_layout_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    folder = layouts.make(tmp_path / "image", {})
    for link in (folder / "blobs/sha256").iterdir():
        if link.is_symlink():
            link.unlink()
    change(folder)
    done = aikit_nix("inspect", folder, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")
    (tmp_path / "cut.tar").write_bytes(
        archive(layouts.make(tmp_path / "a/x", {PATH: b"x"}), b"x", tmp_path / "t").read_bytes()[:2000]
    )
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name in ("text", "cut.tar", "empty.tar"):
        with pytest.raises(AikitError, match="is no image that can be read"):
            find.image_of(str(tmp_path / name))


def test_what_changed_is_said(tmp_path: Path) -> None:
    one = layouts.make(tmp_path / "one", {PATH: b"weights", "/models/old": b"old"}, b"text")
    two = layouts.make(tmp_path / "two", {"/models/new": b"new", PATH: b"others!"}, b"texts")
    done = aikit_nix("diff", one, two, "--format", "json", "--exit-code", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = {each["part"]: (each["a"], each["b"]) for each in json.loads(done.stdout) if each["part"] != "layer"}
    assert found[f"model {PATH}"] == tuple(f"sha256 {layouts.sha256(model)}" for model in (b"weights", b"others!"))
    assert found["model /models/old"][1] is found["model /models/new"][0] is None
    assert "entrypoint" in found
    assert len(json.loads(done.stdout)) == len(found) + 2

    done = aikit_nix("diff", one, two, cwd=tmp_path)
    assert done.returncode == 0
    assert f"- sha256 {layouts.sha256(b'weights')}" in done.stdout
    assert "fetches" in done.stderr

    done = aikit_nix("diff", one, one, "--exit-code", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_pull_costs(tmp_path: Path) -> None:
    one = layout.read_layout(layouts.make(tmp_path / "one", {PATH: bytes(100_000)}, b"text"))
    two = layout.read_layout(layouts.make(tmp_path / "two", {PATH: bytes(100_000)}, b"texts"))
    assert diff.to_fetch(one, two) == two.layers[1].size
    assert diff.to_fetch(one, one) == 0


def test_locks_are_compared(tmp_path: Path) -> None:
    for name, sha256 in (("a.lock", "1" * 64), ("b.lock", "2" * 64)):
        files = [{"path": PATH, "url": "https://example.com/x", "size": 3, "sha256": sha256}]
        models = [{"name": "m", "source": "https://example.com/x", "origin": {"kind": "http"}, "files": files}]
        (tmp_path / name).write_text(json.dumps({"version": 1, "models": models}))
    done = aikit_nix("diff", "a.lock", "b.lock", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line[:12] for line in done.stdout.splitlines()] == ["m /models/a/", "  - sha256 1", "  + sha256 2"]
    folder = layouts.make(tmp_path / "image", {})
    done = aikit_nix("diff", "a.lock", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be compared" in done.stderr
    assert aikit_nix("diff", "a.lock", "none.lock", cwd=tmp_path).returncode == 1
