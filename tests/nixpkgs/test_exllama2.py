"""ExLlamaV2 compiled for one capability, and asked by LocalAI on a machine without a graphics card.

Besides what ./test_cuda.py needs: the environment variable AIKIT_PYTHON313, which names the folder that a CPython 3.13 was
installed into (by pyenv, for example); 8 GB of disk; 2.6 GB of wheels from PyPI.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixpkgs import cuda, localai, toolchain
from nixpkgs.toolchain import Nixpkgs
from support import container
from support.command import aikit_nix
from support.container import ContainerError
from support.image import unpack


@dataclass(frozen=True)
class Server:
    """LocalAI with the backend, and where its log is."""

    url: str
    log: Path

    def status(self, path: str) -> int:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return int(answer.status)


AIKITFILE = """\
apiVersion: v1alpha1
debug: true
runtime: cuda
backends: [exllama2]
models: [{name: small, source: small/}]
config: |
  - {name: small, backend: exllama2, parameters: {model: small}}
"""
MODEL = {"config.json": '{"architectures": ["LlamaForCausalLM"]}', "tokenizer.json": "{}"}


@pytest.fixture(scope="module")
def exllama2_nixpkgs(tmp_path_factory: pytest.TempPathFactory) -> Nixpkgs:
    python = os.environ.get("AIKIT_PYTHON313")
    if not python or not (Path(python) / "bin/python3.13").is_file():
        pytest.skip("AIKIT_PYTHON313 does not name a folder with bin/python3.13")
    try:
        overlays = {**cuda.overlay(), toolchain.HERE / "cpython.nix": {"prefix": python}}
        nixpkgs = localai.on_debian(tmp_path_factory.mktemp("nixpkgs") / "exllama2", overlays)
        # LocalAI's, and the wheels.
        localai.provide_sources(nixpkgs, *nixpkgs.instantiate(cuda.engine("exllama2"), "package"))
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))
    return nixpkgs


@pytest.fixture(scope="module")
def parts(exllama2_nixpkgs: Nixpkgs) -> dict[str, Path]:
    """The server, and the backend."""
    engine = cuda.engine("exllama2")
    names = ("exllama2.backend", "server")
    return {name: realise(exllama2_nixpkgs, *exllama2_nixpkgs.instantiate(engine, f"parts.{name}")) for name in names}


def realise(nixpkgs: Nixpkgs, drv: str) -> Path:
    outputs = nixpkgs.run(["nix-store", "--realise", drv]).split()
    return Path(next(path for path in outputs if not path.endswith("-backends")))


@pytest.fixture
def server(parts: dict[str, Path], tmp_path: Path) -> Iterator[Server]:
    """With a folder that looks like a model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = Server(f"http://{address}", tmp_path / "log")
    for name in ("exllama", "exllama2"):
        (tmp_path / "backends" / name).mkdir(parents=True)
        (tmp_path / "backends" / name / "run.sh").symlink_to(parts["exllama2.backend"] / "bin/exllama2")
        (tmp_path / "models" / name).mkdir(parents=True)
        for file, text in MODEL.items():
            (tmp_path / "models" / name / file).write_text(text)
    (tmp_path / "config.yaml").write_text(
        json.dumps([{"name": n, "backend": n, "parameters": {"model": n}} for n in ("exllama", "exllama2")])
    )
    env = {
        "HOME": str(tmp_path),
        "LOCALAI_ADDRESS": address,
        "LOCALAI_BACKENDS_PATH": str(tmp_path / "own"),
        "LOCALAI_BACKENDS_SYSTEM_PATH": str(tmp_path / "backends"),
        "LOCALAI_MODELS_PATH": str(tmp_path / "models"),
        "LOCALAI_DATA_PATH": str(tmp_path / "data"),
        "LOCALAI_AUTOLOAD_GALLERIES": "false",
        "LOCALAI_AUTOLOAD_BACKEND_GALLERIES": "false",
        "CONFIG_FILE": str(tmp_path / "config.yaml"),
        "DEBUG": "true",
    }
    (tmp_path / "own").mkdir()
    with started.log.open("wb") as log:
        process = subprocess.Popen([parts["server"] / "bin/local-ai"], cwd=tmp_path, env=env, stdout=log, stderr=log)
        try:
            _until_ready(started, process)
            yield started
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(60)


def _until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            assert server.status("/readyz") == 200
        except OSError:
            assert process.poll() is None
            time.sleep(0.5)
        else:
            return
    raise AssertionError("the server does not start")


@pytest.mark.parametrize("model", ["exllama", "exllama2"])
def test_without_a_gpu_the_answer_says_so_and_the_server_lives_on(server: Server, model: str) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    asked = urllib.request.Request(f"{server.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=600)
    said = refused.value.read().decode()
    assert refused.value.code == 500
    assert "no CUDA device: ExLlamaV2 runs on NVIDIA GPUs only" in said, server.log.read_text()[-3000:]
    assert server.status("/readyz") == 200


def test_the_extension_is_what_exllamav2_asks_for(exllama2_nixpkgs: Nixpkgs) -> None:
    """With the modules, libraries and interpreter that the backend is started with."""
    engine = cuda.engine("exllama2")
    names = ("interpreter", "extension", "modules")
    python, extension, modules = (
        realise(exllama2_nixpkgs, *exllama2_nixpkgs.instantiate(engine, f"parts.exllama2.{name}")) for name in names
    )
    program = "import torch, exllamav2, exllamav2.generator; from exllamav2.ext import ext_c as ext; print(torch.cuda.is_available(), ext.__file__, callable(ext.make_q_matrix), callable(ext.gemm_half_q_half))"
    env = {"LD_LIBRARY_PATH": f"{extension}/lib", "PYTHONPATH": f"{extension}:{modules}"}
    argv = [str(python / "bin/python3.13"), "-B", "-s", "-P", "-c", program]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    available, file, *functions = done.stdout.split()
    assert (available, Path(file)) == ("False", extension / "exllamav2_ext.so")
    assert functions == ["True", "True"]


def test_an_images_server_says_so_too(bubblewrap: None, exllama2_nixpkgs: Nixpkgs, tmp_path: Path) -> None:
    """The whole image, of 3.4 GB and LocalAI's other programs for CUDA."""
    (tmp_path / "small").mkdir()
    for file, text in MODEL.items():
        (tmp_path / "small" / file).write_text(text)
    (tmp_path / "aikitfile.yaml").write_text(AIKITFILE)
    done = aikit_nix("gen", "--cuda-capability", "9.0", cwd=tmp_path, env={**os.environ, **exllama2_nixpkgs.env})
    assert done.returncode == 0, done.stderr
    root = tmp_path / "root"
    try:
        image = unpack(exllama2_nixpkgs.build(tmp_path / "flake", "default"), root)
        assert {"config.json", "tokenizer.json"} == {file.name for file in (root / "models/small").iterdir()}
        # The C library's folder, which nixpkgs' own loader knows, is the machine's for Debian's.
        (tmp_path / "libc").mkdir()
        for name in ("dl", "m", "pthread", "rt", "util"):
            shutil.copy(next(Path("/lib/x86_64-linux-gnu").glob(f"lib{name}.so.[0-9]")), tmp_path / "libc")
        with container.start(image, root, volumes={"/lib/x86_64-linux-gnu": tmp_path / "libc"}) as running:
            with pytest.raises(ContainerError, match="no CUDA device: ExLlamaV2 runs on NVIDIA GPUs only"):
                running.chat("hello", model="small")
            assert "small" in [model["id"] for model in running.ask("/v1/models")["data"]]
    finally:
        # The image's folders are read-only.
        subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)
