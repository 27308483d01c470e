"""Writing a flake: all or nothing, and nothing of the user's is lost."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from aikit_nix import flake, plan
from aikit_nix.errors import AikitError
from aikit_nix.parser import parse

AIKITFILE = b"""\
apiVersion: v1alpha1
models:
  - name: m
    source: https://example.com/m.gguf
    sha256: "1111111111111111111111111111111111111111111111111111111111111111"
"""


def planned(packages: plan.Packages = plan.Packages.DEBIAN, aikitfile: bytes = AIKITFILE) -> plan.Plan:
    return plan.make(parse(aikitfile, "aikitfile.yaml")[0], plan.Options(packages=packages))[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_written_folder_is_what_was_rendered(tmp_path: Path) -> None:
    files = flake.render(planned())
    assert flake.write(files, tmp_path / "out") == ()
    assert tree(tmp_path / "out") == files.content
    assert files.top_level() == ("aikit", "flake.nix")


def test_only_nixpkgs_has_an_input_and_a_lock() -> None:
    debian = flake.render(planned()).content
    nixpkgs = flake.render(planned(plan.Packages.NIXPKGS)).content
    assert "flake.lock" not in debian
    assert b"inputs" not in debian["flake.nix"]
    original = json.loads(nixpkgs["flake.lock"])["nodes"]["nixpkgs"]["original"]
    assert f'"github:NixOS/nixpkgs/{original["rev"]}"'.encode() in nixpkgs["flake.nix"]


def test_another_nixpkgs_is_left_to_nix_to_lock() -> None:
    for reference, url in [
        ("a" * 40, "github:NixOS/nixpkgs/" + "a" * 40),
        ("path:/srv/nixpkgs", "path:/srv/nixpkgs"),
    ]:
        files = flake.render(planned(plan.Packages.NIXPKGS), reference)
        assert f'url = "{url}";'.encode() in files.content["flake.nix"]
        assert "flake.lock" not in files.content


@pytest.mark.parametrize("reference", ["master", '"; x = "', "path:/a b", "path:/${x}", "github:a/b\n"])
def test_a_reference_that_is_none_cannot_become_nix_code(reference: str) -> None:
    with pytest.raises(AikitError, match="--nixpkgs"):
        flake.render(planned(plan.Packages.NIXPKGS), reference)


def test_writing_again_replaces_what_we_wrote(tmp_path: Path) -> None:
    flake.write(flake.render(planned(plan.Packages.NIXPKGS)), tmp_path)
    (tmp_path / "flake.lock").write_text("updated by nix")
    (tmp_path / "own.txt").write_text("the user's")
    files = flake.render(planned())
    assert flake.write(files, tmp_path) == ()
    assert tree(tmp_path) == {**files.content, "own.txt": b"the user's"}


@pytest.mark.parametrize("foreign", ["flake.nix", "aikit/plan.json", "aikit/default.nix", "aikit/more.nix"])
def test_what_others_wrote_is_refused_or_set_aside(tmp_path: Path, foreign: str) -> None:
    flake.write(flake.render(planned()), tmp_path)
    with (tmp_path / foreign).open("a") as file:
        file.write("# mine\n")
    before = tree(tmp_path)
    with pytest.raises(AikitError, match="--force"):
        flake.write(flake.render(planned(aikitfile=AIKITFILE + b"debug: true\n")), tmp_path)
    assert tree(tmp_path) == before

    flake.write(flake.render(planned()), tmp_path, force=True)
    top, slash, rest = foreign.partition("/")
    assert (tmp_path / f"{top}~{slash}{rest}").read_bytes() == before[foreign]


def test_a_folder_named_aikit_of_the_users_is_kept(tmp_path: Path) -> None:
    (tmp_path / "aikit").mkdir()
    (tmp_path / "aikit/mine.nix").write_text("{ }")
    with pytest.raises(AikitError, match="not written by aikit-nix"):
        flake.write(flake.render(planned()), tmp_path)
    assert tree(tmp_path) == {"aikit/mine.nix": b"{ }"}


def test_a_folder_named_nix_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "nix").mkdir()
    (tmp_path / "nix/mine.nix").write_text("{ }")
    flake.write(flake.render(planned()), tmp_path)
    assert tree(tmp_path)["nix/mine.nix"] == b"{ }"


def test_a_failure_half_way_leaves_the_old_flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flake.write(flake.render(planned(plan.Packages.NIXPKGS)), tmp_path)
    before = tree(tmp_path)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.parent.name == "new" and self.name == "flake.nix":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(AikitError, match="No space left"):
        flake.write(flake.render(planned()), tmp_path)
    assert tree(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(AikitError, match="no folder"):
        flake.write(flake.render(planned()), tmp_path / "out")


def git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_in_a_git_repository_nix_sees_the_files(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.json\n")
    files = flake.render(planned())
    flake.write(files, tmp_path / "image")
    assert flake.show_to_nix(files, tmp_path / "image") == ()
    assert set(git(tmp_path, "ls-files").split()) == {f"image/{path}" for path in files.content}
    assert git(tmp_path, "diff", "--cached", "--name-only") == ""


def test_outside_of_git_there_is_nothing_to_show(tmp_path: Path) -> None:
    files = flake.render(planned())
    assert flake.show_to_nix(files, tmp_path) == ()


def test_a_model_inside_the_flake_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flake, "_LARGE_BYTES", 3)
    (tmp_path / "big.gguf").write_bytes(b"1234")
    (tmp_path / "small.gguf").write_bytes(b"1")
    (tmp_path / "link.gguf").symlink_to("big.gguf")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/other").write_bytes(b"1234")
    (tmp_path / "elsewhere").mkdir()

    def warned(folder: Path) -> list[str]:
        found = flake.copied_models(folder, [tmp_path / "deep/other", tmp_path / "link.gguf"])
        return [re.findall(r"\S+", diagnostic.message)[0] for diagnostic in found]

    assert warned(tmp_path) == [str(tmp_path / "big.gguf"), str(tmp_path / "deep/other")]
    assert warned(tmp_path / "elsewhere") == []

    git(tmp_path, "init", "-q")
    assert warned(tmp_path) == []
    git(tmp_path, "add", "deep/other")
    assert warned(tmp_path) == [str(tmp_path / "deep/other")]
