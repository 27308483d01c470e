"""ExLlamaV2 compiled for one capability, and asked by LocalAI on a machine without a graphics card.

Besides what ./test_cuda.py needs: the environment variable AIKIT_PYTHON313, which names the folder that a CPython 3.13 was
installed into (by pyenv, for example); 8 GB of disk; 2.6 GB of wheels from PyPI.
"""

from __future__ import annotations

import json
import os
import re
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


@dataclass(frozen=True)
class Server:
    """LocalAI with the backend, and where its log is."""

    url: str
    log: Path

    def status(self, path: str) -> int:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return int(answer.status)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The server, and the backend's run.sh."""
    python = os.environ.get("AIKIT_PYTHON313")
    if not python or not (Path(python) / "bin/python3.13").is_file():
        pytest.skip("AIKIT_PYTHON313 does not name a folder with bin/python3.13")
    try:
        overlays = {**cuda.overlay(), toolchain.HERE / "cpython.nix": {"prefix": python}}
        nixpkgs = localai.on_debian(tmp_path_factory.mktemp("nixpkgs") / "exllama2", overlays)
        engine = cuda.engine("exllama2")
        drvs = {name: nixpkgs.instantiate(engine, f"parts.{name}")[0] for name in ("exllama2.run", "server")}
        # LocalAI's, which both are made from, and the wheels.
        localai.provide_sources(nixpkgs, drvs["exllama2.run"])
        return {name: realise(nixpkgs, drv) for name, drv in drvs.items()}
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))


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
        (tmp_path / "backends" / name / "run.sh").symlink_to(parts["exllama2.run"])
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (tmp_path / "models" / name / "tokenizer.json").write_text("{}")
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


def test_the_extension_is_what_exllamav2_asks_for(parts: dict[str, Path]) -> None:
    """Started as the backend is: with its modules, libraries and interpreter."""
    script = parts["exllama2.run"].read_text()
    started = re.sub(r"-P \S+backend\.py.*", '-P -c "$PROGRAM"', script)
    assert started != script
    program = "import torch, exllamav2, exllamav2.generator; from exllamav2.ext import ext_c as ext; print(torch.cuda.is_available(), ext.__file__, callable(ext.make_q_matrix), callable(ext.gemm_half_q_half))"
    done = subprocess.run(
        ["bash", "-c", started], env={"PROGRAM": program}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    available, file, *functions = done.stdout.split()
    assert available == "False"
    assert file.endswith("-exllamav2-ext-0.3.2/exllamav2_ext.so")
    assert functions == ["True", "True"]
