"""`aikit-nix lock` and `fetch` as a user runs them, and what they leave."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from aikit_nix.nix import store
from support.command import aikit_nix


def write(folder: Path, *models: tuple[str, str], more: str = "", sha256: str | None = None) -> None:
    lines = [f'  - {{name: "{name}", source: "{source}"}}' for name, source in models]
    if sha256:
        lines[0] = lines[0].replace("}", f', sha256: "{sha256}"}}')
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n" + "\n".join(lines) + f"\n{more}")


def run(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return aikit_nix(*args, cwd=folder, env={**os.environ, **env} if env else None)


def done(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command that succeeds says."""
    result = run(folder, *args, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def refused(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command says that fails as it should."""
    result = run(folder, *args, env=env)
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr


def locked(folder: Path) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads((folder / "aikit.lock").read_text())["models"]
    return models


def only_file(folder: Path) -> dict[str, Any]:
    (model,) = locked(folder)
    (file,) = model["files"]
    found: dict[str, Any] = file
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_store(file_name: str, data: bytes) -> bool:
    return store.present([(file_name, digest(data))])[0]
