"""LocalAI compiled from source: what a user waits for, what it weighs, and how fast it is beside upstream's own build.

Needs what tests/nixpkgs/test_localai_image.py needs, and the demo's model for the speed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from nixpkgs import localai, test_localai, toolchain
from nixpkgs.toolchain import Nixpkgs
from support import image, tiny_gguf
from support.command import aikit_nix

# The runtimes, each with the flags of the target that LocalAI's own Makefile has for it.
RUNTIMES = {
    "avx": "-DGGML_AVX=on -DGGML_AVX2=off -DGGML_AVX512=off -DGGML_FMA=off -DGGML_F16C=off -DGGML_BMI2=off",
    "avx2": "-DGGML_AVX=on -DGGML_AVX2=on -DGGML_AVX512=off -DGGML_FMA=on -DGGML_F16C=on",
    "avx512": "-DGGML_AVX=on -DGGML_AVX2=off -DGGML_AVX512=on -DGGML_FMA=on -DGGML_F16C=on",
}
ROUNDS = 5

# What nixpkgs' binary cache has of an image's ingredients.
CACHED = """
  { nixpkgs }:
  let pkgs = import nixpkgs { config = { }; overlays = [ ]; }; in
  {
    inherit (pkgs)
      abseil-cpp cacert cmake coreutils gitMinimal go grpc ninja nodejs openssl patchelf pkg-config prefetch-npm-deps
      protobuf protoc-gen-go protoc-gen-go-grpc python3 re2 stdenv stdenvNoCC;
    inherit (pkgs.npmHooks) npmBuildHook npmConfigHook npmInstallHook;
    inherit (pkgs.llama-cpp) npmDeps;
  }
"""

Number = tuple[str, float, str, float | None]


def measure(folder: Path, model: Path | None) -> Iterator[Number]:
    """Name, value, unit and bound of each number; the speed is measured with a model.

    Raises toolchain.UnavailableError.
    """
    real = toolchain.unmodified()
    cached = requisites(real, *real.instantiate(CACHED))
    for runtime in RUNTIMES:
        drv = test_localai.engine(real, "x86_64-linux", runtime, [])
        built = [path for path in requisites(real, drv) - cached if path.endswith(".drv")]
        yield f"localai, {runtime}: derivations to build", len(built), "", None

    nixpkgs = localai.on_debian(folder / "nixpkgs")
    drv = test_localai.engine(nixpkgs, "x86_64-linux", "avx2", [])
    localai.provide_sources(nixpkgs, drv)
    flake = _flake(folder, nixpkgs)
    programs = {}
    for runtime in RUNTIMES:
        archive = nixpkgs.build(flake, f"image-{runtime}")
        size = image.unpack(archive).size - (folder / "tiny.gguf").stat().st_size
        yield f"localai, {runtime}: image without models", size / 1e6, "MB", 250
        package = realise(nixpkgs, test_localai.engine(nixpkgs, "x86_64-linux", runtime, []))
        said = json.loads(nixpkgs.run(["nix", "path-info", "--json", "--closure-size", package]))
        (info,) = said.values() if isinstance(said, dict) else said
        yield f"localai, {runtime}: closure of the engine", info["closureSize"] / 1e6, "MB", None
        programs[runtime] = Path(package, "backends/llama-cpp/run.sh").resolve()
        server = Path(package, "bin/local-ai")

    if not model:
        return
    flags = Path("/proc/cpuinfo").read_text()
    runnable = [runtime for runtime in RUNTIMES if f" {({'avx512': 'avx512bw'}).get(runtime, runtime)} " in flags]
    isa = runnable[-1]
    # Upstream's flags for the same instruction set, and all that this processor has (VNNI and BF16 may be among it).
    same = upstream_build(drv, nixpkgs, isa, f"CMAKE_ARGS={RUNTIMES[isa]}")
    native = upstream_build(drv, nixpkgs, "native", "NATIVE=true")
    candidates = {name: programs[name] for name in runnable} | {f"upstream, {isa}": same, "upstream, native": native}
    speeds: dict[str, list[tuple[float, float]]] = {}
    # Turn by turn: what else the machine does then hits all of them alike.
    for _ in range(ROUNDS):
        for name, program in candidates.items():
            speeds.setdefault(name, []).append(speed(folder, server, program, model))
    best = {name: tuple(map(max, zip(*runs, strict=True))) for name, runs in speeds.items()}
    for name, (prompt, generation) in best.items():
        yield f"localai, {name}: prompt", prompt, "tokens/s", None
        yield f"localai, {name}: generation", generation, "tokens/s", None
    for other, bound in ((f"upstream, {isa}", 5), ("upstream, native", None)):
        for index, what in enumerate(("prompt", "generation")):
            slower = (1 - best[isa][index] / best[other][index]) * 100
            yield f"localai, {isa} beside {other}: {what} slower by", slower, "%", bound


def _flake(folder: Path, nixpkgs: Nixpkgs) -> Path:
    """A generated flake with the tiny model."""
    tiny_gguf.make(folder / "tiny.gguf")
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - {name: tiny, source: tiny.gguf}\n")
    done = aikit_nix("gen", "--flake", "flake", cwd=folder, env={**os.environ, **nixpkgs.env})
    if done.returncode:
        raise toolchain.UnavailableError(done.stderr)
    return folder / "flake"


def requisites(nixpkgs: Nixpkgs, *drvs: str) -> set[str]:
    """All that derivations are made from, themselves included."""
    paths = [drv.partition("!")[0] for drv in drvs]  # what nix-instantiate says of an output
    return set(nixpkgs.run(["nix-store", "--query", "--requisites", *paths]).splitlines())


def realise(nixpkgs: Nixpkgs, drv: str) -> str:
    """The output of a derivation, built."""
    return nixpkgs.run(["nix-store", "--realise", drv]).strip()


def upstream_build(drv: str, nixpkgs: Nixpkgs, name: str, setting: str) -> Path:
    """LocalAI's own `make grpc-server` on the same sources, outside of Nix, with a setting of its Makefile."""
    work = toolchain.REPOSITORY / f"build/upstream-{name}"
    program = work / "LocalAI/backend/cpp/llama-cpp/grpc-server"
    if program.exists():
        return program
    shutil.rmtree(work, ignore_errors=True)
    sources = [path for path in requisites(nixpkgs, drv) if path.endswith("-source.drv")]
    outputs = nixpkgs.run(["nix-store", "--query", "--outputs", *sources]).split()
    (tree,) = (path for path in outputs if Path(path, "backend/cpp/llama-cpp").is_dir())
    (llama_cpp,) = (path for path in outputs if Path(path, "ggml").is_dir())
    for source, target in ((tree, work / "LocalAI"), (llama_cpp, program.parent / "llama.cpp")):
        shutil.copytree(source, target)
        subprocess.run(["chmod", "-R", "u+w", str(target)], check=True)
    # Debian's protobuf has no CMake package of its own.
    protobuf = work / "protobuf"
    protobuf.mkdir()
    (protobuf / "protobuf-config.cmake").write_text("find_package(Protobuf MODULE REQUIRED)\n")
    # From the environment, so that the Makefile can add its own.
    given, _, value = setting.partition("=")
    env = {**os.environ, given: value}
    env["CMAKE_ARGS"] = f"{env.get('CMAKE_ARGS', '')} -DProtobuf_DIR={protobuf}"
    subprocess.run(["make", "-C", str(program.parent), "grpc-server"], check=True, env=env)
    return program


def speed(folder: Path, server: Path, program: Path, model: Path) -> tuple[float, float]:
    """Tokens a second of a llama.cpp backend under LocalAI: reading a prompt, and generating."""
    work = folder / "speed"
    shutil.rmtree(work, ignore_errors=True)
    (work / "backends/llama-cpp").mkdir(parents=True)
    (work / "backends/llama-cpp/run.sh").symlink_to(program)
    (work / "models").mkdir()
    (work / "models/model.gguf").symlink_to(model)
    config = [{"name": "m", "backend": "llama", "parameters": {"model": "model.gguf"}, "context_size": 1024}]
    (work / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    env = {
        "HOME": str(work),
        "TMPDIR": str(work),
        "LOCALAI_ADDRESS": address,
        "LOCALAI_MODELS_PATH": str(work / "models"),
        "LOCALAI_BACKENDS_SYSTEM_PATH": str(work / "backends"),
        "LOCALAI_BACKENDS_PATH": str(work / "none"),
        "LOCALAI_DATA_PATH": str(work / "data"),
        "LOCALAI_CONFIG_DIR": str(work / "configuration"),
        "LOCALAI_BACKEND_GALLERIES": "[]",
        "LOCALAI_GALLERIES": "[]",
        "CONFIG_FILE": str(work / "config.yaml"),
    }
    with (
        (work / "log").open("wb") as log,
        subprocess.Popen([str(server)], env=env, cwd=work, stdout=log, stderr=log) as process,
    ):
        try:
            _wait(f"http://{address}/readyz")
            _chat(address, "warm", 1)
            usage = _chat(address, "word " * 300, 128)
        finally:
            process.terminate()
    return (
        usage["prompt_tokens"] / usage["timing_prompt_processing"] * 1000,
        usage["completion_tokens"] / usage["timing_token_generation"] * 1000,
    )


def _chat(address: str, prompt: str, tokens: int) -> dict[str, float]:
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "m", "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    headers = {"Content-Type": "application/json", "Extra-Usage": "1"}
    request = urllib.request.Request(f"http://{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as response:
        usage: dict[str, float] = json.load(response)["usage"]
    return usage


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)
