"""Flakes as `aikit-nix gen` writes them, and the locks beside them, without Nix: what recipes are read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.hashing import hash_file
from aikit_nix.flakes import plan
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.folder import write as write_flake
from aikit_nix.models import project, remote
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock

COMMIT = "1" * 40
HUB = "huggingface://TheBloke/Llama-2-7B-Chat-GGUF/llama.gguf"


def write(
    folder: Path,
    content: bytes = b"weights",
    *,
    packages: plan.Packages = plan.Packages.DEBIAN,
    origin: Mapping[str, Any] | None = None,
    **options: Any,
) -> bytes:
    """A flake of one model from Hugging Face in `folder`, and aikit.lock beside it; gives the model's bytes."""
    path = "/models/llama.gguf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "llama.gguf").write_bytes(content)
    digests = hash_file(folder / "llama.gguf", remote.frame_of(path))
    (folder / "llama.gguf").unlink()
    known = {
        "repository": "TheBloke/Llama-2-7B-Chat-GGUF",
        "revision": COMMIT,
        "license": "apache-2.0",
        "base_models": ("meta-llama/Llama-2-7b-chat-hf",),
    }
    url = f"https://huggingface.co/TheBloke/Llama-2-7B-Chat-GGUF/resolve/{COMMIT}/llama.gguf"
    pin = Pin(digests.sha256, digests.size, digests.blake3, remote.layer_of(path, digests), url)
    entry = Entry.of("llama", HUB, Origin("huggingface", **(known | dict(origin or {}))), ((path, pin),))
    (folder / "aikit.lock").write_text(Lock.of("aikit.lock", [entry]).to_json())
    (folder / "aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nruntime: avx2\nmodels:\n  - {{name: llama, source: '{HUB}'}}\n"
        "config: |\n  - name: llama\n    parameters: {model: llama.gguf}\n"
    )
    render(folder, packages=packages, **options)
    return content


def render(folder: Path, **options: Any) -> None:
    """What `gen` does with the aikitfile and lock of a folder, but for Nix."""
    pinned, _ = project.pin(project.read(folder / "aikitfile.yaml"))
    planned, _ = plan.make(pinned, plan.Options(**options))
    write_flake(flake.render(planned, Choices()), folder)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def change(file: Path, **values: Any) -> None:
    """Replace top-level values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
