"""Plans for tests of the Nix side: what `aikit-nix gen` would write to plan.json."""

from __future__ import annotations

import json
from typing import Any

from nixpkgs import toolchain

# `nix build`'s view of a generated flake.
OUTPUTS = f"""
  {{ nixpkgs, plan }}: import {toolchain.REPOSITORY}/nix {{ inherit nixpkgs; plan = builtins.fromJSON plan; }}
"""

SYSTEMS = {
    "x86_64-linux": {"default": "avx2", "runtimes": ["avx", "avx2", "avx512", "cuda"]},
    "aarch64-linux": {"default": "cpu", "runtimes": ["cpu", "cuda"]},
}


def plan(**changes: Any) -> str:
    """A plan for llama-server with one model from a URL; `changes` replace its top-level values."""
    model = {
        "path": "/models/tiny.gguf",
        "name": "tiny.gguf",
        "url": "https://example.com/tiny.gguf",
        "sha256": "0" * 64,
        "size": None,
        "layer": None,
        "fetch": None,
    }
    return json.dumps(
        {
            "formatVersion": 2,
            "generator": "aikit-nix test",
            "image": {"name": "tiny", "tag": None, "labels": {"org.opencontainers.image.title": "tiny"}},
            "packages": "nixpkgs",
            "engine": "llama-server",
            "backends": [],
            "systems": SYSTEMS,
            "models": [model],
            "files": [{"path": "/config.yaml", "text": "- name: tiny\n"}],
            "cmd": [],
            "probe": ["8080", "/health", "--port", "LLAMA_ARG_PORT"],
            "entrypoint": ["--host", "0.0.0.0", "--port", "8080", "--offline", "--model", "/models/tiny.gguf"],
            "env": {},
            "cudaCapabilities": [],
        }
        | changes
    )
