"""What differs between two images, or two locks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aikit_nix.image import diff, layout
from aikit_nix.image.diff import Difference
from aikit_nix.image.layout import Image
from support import layouts
from support.command import aikit_nix

PATH = "/models/a/tiny.gguf"


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
        files = [{"path": PATH, "url": "https://example.com/tiny.gguf", "size": 3, "sha256": sha256}]
        models = [
            {"name": "a/m", "source": "https://example.com/tiny.gguf", "origin": {"kind": "http"}, "files": files}
        ]
        (tmp_path / name).write_text(json.dumps({"version": 1, "models": models}))
    done = aikit_nix("diff", "a.lock", "b.lock", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line[:12] for line in done.stdout.splitlines()] == ["a/m /models/", "  - sha256 1", "  + sha256 2"]
    folder = layouts.make(tmp_path / "image", {})
    done = aikit_nix("diff", "a.lock", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be compared" in done.stderr
    assert aikit_nix("diff", "a.lock", "none.lock", cwd=tmp_path).returncode == 1


def image(tmp_path: Path, name: str, **run: Any) -> Image:
    folder = layouts.write(tmp_path / name, {PATH: b"weights"}, {"x": b"1"}, run=run)
    return layout.read_layout(folder)


def test_each_variable_and_each_label_differs_for_itself(tmp_path: Path) -> None:
    one = image(tmp_path, "one", Env=["A=1", "B=2", "C"], User="65532")
    two = image(tmp_path, "two", Env=["A=1", "B=3=3"], User="65532")
    assert diff.images(one, two) == [
        Difference("variable B", "2", "3=3"),
        Difference("variable C", "", None),
    ]
    assert list(diff.images(one, two)[1].lines()) == ["variable C", "  - "]


def test_layers_in_another_order_are_another_image(tmp_path: Path) -> None:
    """Docker lays them over each other as they are listed."""
    one = image(tmp_path, "one")
    two = Image(one.manifest, one.digest, "sha256:other", 0, one.config, one.layers[::-1], one.names)
    (found,) = diff.images(one, two)
    assert found.part == "order of the layers"
    assert str(found.a).split() == str(found.b).split()[::-1]
