"""`lib.mkImage`: what a caller gets wrong is said in its own words, before anything is built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base import data

PLAN = Path(__file__).parents[1] / "fixtures/plan.json"


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize(
    ("system", "arguments", "change", "said"),
    [
        ("aarch64-darwin", {}, {}, "no image for aarch64-darwin, only for aarch64-linux x86_64-linux"),
        ("x86_64-linux", {"runtime": "rocm"}, {}, "no runtime rocm for x86_64-linux, only avx avx2 avx512 cuda"),
        ("x86_64-linux", {"runtime": "cuda"}, {}, "needs a nixpkgs with config.cudaSupport = true"),
        ("x86_64-linux", {}, {"packages": "debian"}, "the plan takes its packages from debian, not from nixpkgs"),
        ("x86_64-linux", {}, {"formatVersion": 1}, "plans of format 2 are read, not 1"),
    ],
)
def test_what_is_wrong_is_said(system: str, arguments: dict[str, str], change: dict[str, object], said: str) -> None:
    plan = json.loads(PLAN.read_text()) | change
    code = """{ file, given }:
      import file ({ pkgs = { config.cudaSupport = false; stdenv.hostPlatform.system = SYSTEM; }; }
      // builtins.fromJSON given)"""
    argv = ["nix-instantiate", "--eval", "--expr", code.replace("SYSTEM", f'"{system}"')]
    given = json.dumps({"plan": plan, **arguments})
    argv += ["--arg", "file", str(data.NIX / "mk-image.nix"), "--argstr", "given", given]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
