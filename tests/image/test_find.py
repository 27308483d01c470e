"""Where an image is that a command is told of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.image import find, index, layout, push
from aikit_nix.nix import command as nix
from aikit_nix.registry import reference
from support import layouts, recipes
from support.fake_registry import FakeRegistry
from support.pushes import PATH

pytestmark = pytest.mark.usefixtures("own_folders")


def test_a_layout_and_an_archive_are_read_where_they_lie(tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {PATH: b"weights"}, blobs=True)
    wanted = layout.read_layout(folder)
    assert find.layout_of(str(folder)) == wanted
    assert wanted.folder == folder
    assert find.image_of(str(folder)) == wanted
    archive = layouts.archive(folder, tmp_path / "image.tar")
    assert find.image_of(str(archive)).config_digest == wanted.config_digest


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_of_several_in_a_registry_it_is_the_one_for_this_machine(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, architecture: str
) -> None:
    folders = {
        name: layouts.write(tmp_path / name, {}, {"program": name.encode()}, architecture=name)
        for name in ("amd64", "arm64")
    }
    both = [layout.read_layout(folder) for folder in folders.values()]
    contents = [*map(push.of_image, both), index.make(both)]
    push.push(contents, reference.parse(f"{fake.address}/a/x:1"), push.Sending())
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert find.image_of(f"{fake.address}/a/x:1").config["architecture"] == architecture


def test_a_flake_is_built_without_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `inspect` and `push` want to know must need no model on this machine."""
    folder = layouts.make(tmp_path / "image", {PATH: b"weights"})
    built: list[tuple[nix.Flake, str]] = []

    def build(flake: nix.Flake, output: str) -> Path:
        built.append((flake, output))
        return folder

    monkeypatch.setattr(nix, "build", build)
    (tmp_path / "flake").mkdir()
    (tmp_path / "flake/flake.nix").write_text("{ }")
    assert find.layout_of(str(tmp_path / "flake")) == layout.read_layout(folder)
    assert find.layout_of("github:me/images").folder == folder
    assert find.stream_of(str(tmp_path / "flake"))[1] == folder
    own, far = nix.Flake(".", tmp_path / "flake"), nix.Flake("github:me/images")
    assert built == [(own, "manifest"), (far, "manifest"), (own, "manifest"), (own, "stream")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "nothing is not there: write the flake with `aikit-nix gen`, or name its folder with --flake"),
        ("project", "holds neither a flake nor an OCI layout: write one with `aikit-nix gen`, or name project/flake"),
        ("archive", "archive is a file, and no flake"),
        ("layout", "is an OCI layout, which no container engine loads: name the flake"),
    ],
)
def test_what_is_no_flake_is_said_and_never_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    recipes.write(tmp_path / "project/flake")
    layouts.archive(layouts.make(tmp_path / "layout", {}), tmp_path / "archive")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AikitError, match=said):
        find.stream_of(name)


def test_a_layout_is_nothing_to_load(tmp_path: Path) -> None:
    folder = layouts.make(tmp_path / "image", {})
    with pytest.raises(AikitError, match="image is an OCI layout, which no container engine loads: name the flake"):
        find.stream_of(str(folder))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "holds neither a flake nor an OCI layout: write one with `aikit-nix gen`"),
        ("nothing", "nothing is not there, and no name in a registry: REGISTRY/REPOSITORY:TAG"),
        ("./result.tar", "./result.tar is not there, and no name in a registry"),
        ("flake", "flake is not there: write the flake with `aikit-nix gen`"),
        ("text", "is no image that can be read"),
        ("pipe", "is no image"),
    ],
)
def test_what_is_no_image_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    (tmp_path / "text").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AikitError, match=said):
        find.image_of(name)
