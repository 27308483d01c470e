"""nixpkgs' CUDA on NVIDIA's wheels from PyPI, to compile with; and a driver that finds no graphics card.

The folder with the wheels is named by the environment variable AIKIT_CUDA_WHEELS (530 MB to download, so only on
demand).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from nixpkgs import toolchain
from nixpkgs.toolchain import UnavailableError

_OVERLAY = toolchain.HERE / "cuda.nix"
_WHEELS = toolchain.HERE / "cuda-wheels.json"


def overlay() -> dict[Path, Mapping[str, str]]:
    """What `toolchain.on_debian` takes for CUDA. Raises UnavailableError."""
    wheels = json.loads(_WHEELS.read_text())
    named = os.environ.get("AIKIT_CUDA_WHEELS")
    if not named or not all((Path(named) / wheel).is_file() for wheel in wheels):
        wanted = " ".join("{}=={}".format(*wheel.split("-")[:2]) for wheel in wheels)
        raise UnavailableError(
            f"AIKIT_CUDA_WHEELS does not name a folder with NVIDIA's wheels: pip download --no-deps {wanted}"
        )
    return {_OVERLAY: {"wheels": str(Path(named).resolve())}}


def engine(backend: str) -> str:
    """A Nix function from nixpkgs to LocalAI's engine with a backend, compiled for one kind of card."""
    return f"""
      {{ nixpkgs }}:
      (import {toolchain.REPOSITORY}/nix/packages/nixpkgs.nix {{
        inherit nixpkgs;
        plan = {{
          engine = "localai";
          backends = [ "{backend}" ];
          cudaCapabilities = [ "9.0" ];
        }};
      }} "x86_64-linux" "cuda").engine
    """
