"""A flake of the Debian set in a folder of its own, as a user has it: aikitfile, model, lock, flake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import debian_lock
from support.command import aikit_nix

# One model, which the aikitfile itself pins.
PINNED = b"""\
apiVersion: v1alpha1
models:
  - name: m
    source: https://example.com/m.gguf
    sha256: "1111111111111111111111111111111111111111111111111111111111111111"
"""
AIKITFILE = "apiVersion: v1alpha1\nruntime: avx2\nmodels:\n  - {name: tiny, source: tiny.gguf}\n"


@dataclass(frozen=True)
class Project:
    """`folder` has aikitfile.yaml, aikit.lock, the model and the flake's folder."""

    folder: Path

    @property
    def flake(self) -> Path:
        return self.folder / "flake"

    def run(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """`aikit-nix ARGUMENTS` in the folder."""
        return aikit_nix(*arguments, cwd=self.folder, env={**os.environ, **env} if env else None)

    def build(self, output: str) -> Path:
        return build(self.flake, output)


def build(flake: Path, output: str = "default") -> Path:
    """What `nix build` makes of a flake's output; nothing keeps it in the store."""
    argv = ["nix", "build", f"path:{flake}#{output}", "--no-link", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)[0]["outputs"]["out"])


def environment(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """What builds of Debian's packages need in the environment here; a lock that is made for it lies in `folder`."""
    if lock := debian_lock.usable(folder, print):
        patch.setenv("AIKIT_DEBIAN_LOCK", str(lock))


def write(folder: Path, model: Path, patch: pytest.MonkeyPatch, aikitfile: str = AIKITFILE) -> Project:
    """Lock and generate; `patch` gets the environment that builds need here."""
    shutil.copy(model, folder / "tiny.gguf")
    (folder / "aikitfile.yaml").write_text(aikitfile)
    environment(folder, patch)
    for arguments in (["lock"], ["gen", "--packages", "debian"]):
        done = aikit_nix(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return Project(folder)
