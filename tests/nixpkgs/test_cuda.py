"""CUDA compiled by nixpkgs' own cudaPackages, and started as far as a machine without a graphics card goes.

Everything is compiled for one capability, with the kernels left slow.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nixpkgs import cuda, localai, toolchain
from nixpkgs.toolchain import Nixpkgs

PKGS = "(import nixpkgs { config = { allowUnfree = true; cudaSupport = true; }; overlays = [ ]; })"
TINY = f"""
  {{ nixpkgs }}:
  let
    pkgs = {PKGS};
    inherit (pkgs) cudaPackages;
  in
  {{
    driver = cudaPackages.cuda_cudart;
    bundle = import {toolchain.REPOSITORY}/nix/engines/localai/bundle.nix {{
      inherit pkgs;
      program = cudaPackages.backendStdenv.mkDerivation {{
        pname = "tiny-unwrapped";
        version = "1";
        dontUnpack = true;
        nativeBuildInputs = [ cudaPackages.cuda_nvcc ];
        buildInputs = [ cudaPackages.cuda_cudart cudaPackages.libcublas ];
        installPhase = ''
          mkdir -p $out/bin
          nvcc -arch=sm_90 -cudart shared -Xcompiler -fopenmp \\
            -L${{cudaPackages.cuda_cudart}}/lib/stubs -o $out/bin/tiny ${{{toolchain.HERE}/tiny.cu}} -lcublas -lcuda
        '';
        meta.mainProgram = "tiny";
      }};
    }};
  }}
"""


@pytest.fixture(scope="module")
def cuda_nixpkgs(tmp_path_factory: pytest.TempPathFactory) -> Nixpkgs:
    try:
        return localai.on_debian(tmp_path_factory.mktemp("nixpkgs") / "cuda", cuda.overlay())
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))


def realise(nixpkgs: Nixpkgs, expression: str, attribute: str) -> Path:
    (drv,) = nixpkgs.instantiate(expression, attribute)
    return Path(nixpkgs.run(["nix-store", "--realise", drv]).strip())


def test_a_bundled_program_finds_cuda_and_the_driver(cuda_nixpkgs: Nixpkgs) -> None:
    program = realise(cuda_nixpkgs, TINY, "bundle") / "bin/tiny"
    driver = realise(cuda_nixpkgs, TINY, "driver") / "lib/stubs"
    env = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    alone = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    assert alone.returncode == 127
    assert "libcuda.so.1" in alone.stderr
    env["LD_LIBRARY_PATH"] = str(driver)
    started = subprocess.run([program], env=env, capture_output=True, text=True, check=True)
    assert started.stdout.splitlines() == [
        "runtime: no CUDA-capable device is detected",
        "cublas: the library was not initialized",
        "driver: 100",
        "threads: 1",
    ]
    assert "libgomp.so.1" in {path.name for path in (program.parents[1] / "lib").iterdir()}
