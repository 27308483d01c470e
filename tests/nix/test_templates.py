"""`nix flake init -t`: what a new folder gets, without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nixpkgs.toolchain import REPOSITORY
from support.command import aikit_nix


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("", {"aikitfile.yaml"}),
        ("#nixos", {"aikit.lock", "aikitfile.yaml", "flake.nix"}),
        ("#flake-parts", {"aikitfile.lock", "aikitfile.json", "flake.nix"}),
    ],
)
def test_a_template_is_a_beginning(tmp_path: Path, template: str, files: set[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "aikit").mkdir()
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(REPOSITORY / name, tmp_path / "aikit")
    shutil.copytree(REPOSITORY / "templates", tmp_path / "aikit/templates")
    argv = ["nix", "flake", "init", "-t", f"path:{tmp_path}/aikit{template}"]
    done = subprocess.run(argv, cwd=tmp_path / "new", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "new").iterdir()} == files
    (aikitfile,) = files & {"aikitfile.yaml", "aikitfile.json"}
    assert aikit_nix("check", aikitfile, cwd=tmp_path / "new").returncode == 0
    if template:
        done = aikit_nix("lock", "--check", aikitfile, cwd=tmp_path / "new")
        assert done.returncode == 0, done.stderr
