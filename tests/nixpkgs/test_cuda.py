"""CUDA compiled by nixpkgs' own cudaPackages, and started as far as a machine without a graphics card goes.

Everything is compiled for one capability, with the kernels left slow.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixpkgs import cuda, localai, test_image, test_localai_image, toolchain
from nixpkgs.toolchain import Nixpkgs
from support import container, tiny_gguf, tiny_picture
from support.command import aikit_nix
from support.image import Image, unpack

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


AIKITFILE = """\
apiVersion: v1alpha1
debug: true
runtime: cuda
models: [{name: tiny, source: tiny.gguf}MORE]
config: |
  - name: tiny
    backend: llama-cpp
    gpu_layers: 99
    context_size: 512
    parameters: {model: tiny.gguf}
"""
PICTURE = """\
  - name: picture
    backend: stablediffusion
    parameters: {model: picture.safetensors}
    step: 2
backends: [stablediffusion]
"""


@dataclass(frozen=True)
class Built:
    """An image for CUDA, unpacked, and a driver that finds no card."""

    image: Image
    root: Path
    driver: Path


@pytest.fixture(scope="module")
def built(
    cuda_nixpkgs: Nixpkgs, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Built]:
    """The image of an engine, or of LocalAI with a backend."""
    name: str = request.param
    engine = "llama-server" if name == "llama-server" else "localai"
    try:
        if engine == "localai":
            localai.provide_sources(cuda_nixpkgs, *cuda_nixpkgs.instantiate(cuda.engine("stablediffusion"), "package"))
        else:
            cuda_nixpkgs.provide(test_image.LLAMA_CPP, "LLAMA_CPP_SRC")
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp(name)
    tiny_gguf.make(folder / "tiny.gguf")
    text, more = AIKITFILE, ""
    if name == "stablediffusion":
        tiny_picture.make(folder / tiny_picture.FILE)
        text, more = AIKITFILE + PICTURE, f", {{name: picture, source: {tiny_picture.FILE}}}"
    (folder / "aikitfile.yaml").write_text(text.replace("MORE", more))
    argv = ["gen", "--engine", engine, "--cuda-capability", "9.0", "--flake", "flake"]
    done = aikit_nix(*argv, cwd=folder, env={**os.environ, **cuda_nixpkgs.env})
    assert done.returncode == 0, done.stderr
    archive = cuda_nixpkgs.build(folder / "flake", "default")
    driver = realise(cuda_nixpkgs, TINY, "driver") / "lib/stubs/libcuda.so"
    yield Built(unpack(archive, folder / "root"), folder / "root", driver)
    # The image's folders are read-only.
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


each_engine = pytest.mark.parametrize("built", ["llama-server", "localai"], indirect=True)
with_stablediffusion = pytest.mark.parametrize("built", ["stablediffusion"], indirect=True)


@pytest.fixture(params=["", "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/local/nvidia/lib64"])
def driver(built: Built, request: pytest.FixtureRequest) -> Iterator[bool]:
    """The driver where one way or another to start a container mounts it, or nowhere; whether it is there."""
    folder = built.root / request.param
    if not request.param:
        yield False
        return
    folder.mkdir(parents=True, exist_ok=True)
    mounted = folder / "libcuda.so.1"
    shutil.copy(built.driver, mounted)
    yield True
    mounted.unlink()


@each_engine
def test_it_answers_from_the_cpu_with_and_without_a_driver(bubblewrap: None, built: Built, driver: bool) -> None:
    with container.start(built.image, built.root) as running:
        assert running.chat("hello", model="tiny") == tiny_gguf.SENTENCE
        log = running.log()
    assert ("libcuda stub: cuInit" in log) is driver, "a driver that is there is asked for cards"
    assert not re.search(r"libcu(blas|blasLt|dart)\.so[.\d]*: cannot open", log)


@with_stablediffusion
def test_stablediffusion_paints_on_the_cpu_with_and_without_a_driver(
    bubblewrap: None, built: Built, driver: bool
) -> None:
    """The library asks the driver once the model is read, and paints on the CPU."""
    with container.start(built.image, built.root) as running:
        assert tiny_picture.colours(test_localai_image.paint(running, "picture")) == ((64, 64), {tiny_picture.COLOUR})
        log = running.log()
    assert ("libcuda stub: cuInit" in log) is driver


@each_engine
def test_nothing_that_compiles_is_in_the_image(built: Built) -> None:
    paths = {path[44:] for layer in built.image.layers for path in layer.store_paths}
    assert not {path for path in paths if re.search(r"nvcc|nvvm|cccl|crt|static|include|unwrapped", path)}
    # One of each: CUDA's libraries are shared by all that are linked with them.
    assert len([path for path in paths if "libcublas" in path]) == 1
