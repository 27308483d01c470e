"""LocalAI's derivations, evaluated with the real, unmodified nixpkgs. Nothing is built."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.flakes import costs
from nixpkgs import localai
from nixpkgs.toolchain import REPOSITORY, Nixpkgs, UnavailableError
from support.command import aikit_nix

ENGINE = f"""
  {{ nixpkgs, system, runtime, backends ? "[]", files ? "[]" }}:
  (import {REPOSITORY}/nix/packages/nixpkgs.nix {{
    inherit nixpkgs;
    plan = {{
      engine = "localai";
      backends = builtins.fromJSON backends;
      files = builtins.fromJSON files;
      cudaCapabilities = [ ];
    }};
  }} system runtime).engine
"""
# `nix build`'s view of a generated flake.
OUTPUTS = f"""
  {{ nixpkgs, plan }}:
  import {REPOSITORY}/nix {{ inherit nixpkgs; plan = builtins.fromJSON plan; }}
"""
CPU = [("x86_64-linux", "avx"), ("x86_64-linux", "avx2"), ("x86_64-linux", "avx512"), ("aarch64-linux", "cpu")]
CUDA = [("x86_64-linux", "cuda"), ("aarch64-linux", "cuda")]
COMBINATIONS = [(*platform, backends) for platform in CPU + CUDA for backends in ([], ["stablediffusion"])]
COMBINATIONS += [("x86_64-linux", "cuda", ["exllama2"])]


def engine(nixpkgs: Nixpkgs, system: str, runtime: str, backends: list[str], attribute: str = "package") -> str:
    strings = {"system": system, "runtime": runtime, "backends": json.dumps(backends)}
    (drv,) = nixpkgs.instantiate(ENGINE, attribute, **strings)
    return drv


def derivation(nixpkgs: Nixpkgs, drv: str) -> dict[str, Any]:
    shown = nixpkgs.derivation(drv)
    return dict(shown)


def inputs(nixpkgs: Nixpkgs, drv: str, name: str) -> list[dict[str, Any]]:
    """Everything with this name that goes into a derivation."""
    requisites = nixpkgs.run(["nix-store", "--query", "--requisites", drv]).splitlines()
    return [derivation(nixpkgs, path) for path in requisites if path.removesuffix(".drv")[44:] == name]


def flags(shown: dict[str, Any]) -> dict[str, str]:
    """cmake's settings; as for cmake, the last of a name counts."""
    pairs = (flag.removeprefix("-D").partition("=") for flag in shown["env"]["cmakeFlags"].split())
    return {name.split(":")[0]: {"TRUE": "ON", "FALSE": "OFF"}.get(value, value) for name, _, value in pairs}


@pytest.mark.parametrize(("system", "runtime", "backends"), COMBINATIONS)
def test_it_instantiates(nixpkgs: Nixpkgs, system: str, runtime: str, backends: list[str]) -> None:
    drv = engine(nixpkgs, system, runtime, backends)
    assert drv.endswith("-localai.drv")


@pytest.mark.parametrize(
    ("runtime", "backends"),
    [
        *itertools.product(["", "avx", "avx2", "avx512", "cuda"], ["", "stablediffusion"]),
        ("cuda", "exllama, stablediffusion"),
    ],
)
def test_every_image_that_gen_plans_instantiates(nixpkgs: Nixpkgs, tmp_path: Path, runtime: str, backends: str) -> None:
    (tmp_path / "aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nruntime: {runtime}\nbackends: [{backends}]\nmodels:\n"
        f"  - {{name: m, source: 'https://example.com/m.gguf', sha256: '{'0' * 64}'}}\n"
        "config: '[{name: m, parameters: {model: m.gguf}}]'\n"
    )
    done = aikit_nix("gen", "--flake", "flake", cwd=tmp_path, env={**os.environ, **nixpkgs.env})
    assert done.returncode == 0, done.stderr
    plan = (tmp_path / "flake/aikit/plan.json").read_text()
    attributes = [f"packages.{system}.default" for system in json.loads(plan)["systems"]]
    assert len(nixpkgs.instantiate(OUTPUTS, *attributes, plan=plan)) == len(attributes)


FEATURES = {"AVX", "AVX2", "AVX512", "FMA", "F16C", "BMI2"}
INSTRUCTION_SETS = {
    "avx": {"AVX"},
    "avx2": {"AVX", "AVX2", "FMA", "F16C", "BMI2"},
    "avx512": FEATURES,
}


@pytest.mark.parametrize("part", ["llama-cpp.unwrapped", "stablediffusion"])
@pytest.mark.parametrize("runtime", INSTRUCTION_SETS)
def test_a_backend_is_compiled_for_the_runtimes_instructions(nixpkgs: Nixpkgs, runtime: str, part: str) -> None:
    shown = derivation(nixpkgs, engine(nixpkgs, "x86_64-linux", runtime, [], f"parts.{part}"))
    found = flags(shown)
    assert {name for name in FEATURES if found[f"GGML_{name}"] == "ON"} == INSTRUCTION_SETS[runtime]
    assert found["GGML_NATIVE"] == "OFF"
    assert "requiredSystemFeatures" not in shown["env"]


@pytest.mark.parametrize("part", ["llama-cpp.unwrapped", "stablediffusion.unwrapped"])
@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-linux"])
def test_cuda_is_nixpkgs_own(nixpkgs: Nixpkgs, system: str, part: str) -> None:
    shown = derivation(nixpkgs, engine(nixpkgs, system, "cuda", [], f"parts.{part}"))
    assert "libcublas" in shown["env"]["buildInputs"]
    assert "cuda_nvcc" in shown["env"]["nativeBuildInputs"]
    assert flags(shown)["CMAKE_CUDA_ARCHITECTURES"].count(";") + 1 == costs.CUDA_ARCHITECTURES


@pytest.mark.parametrize("part", ["llama-cpp.unwrapped", "stablediffusion"])
@pytest.mark.parametrize(("system", "runtime"), [("aarch64-linux", "cpu"), *CUDA])
def test_where_no_instructions_are_fixed_the_best_library_is_taken_at_run_time(
    nixpkgs: Nixpkgs, system: str, runtime: str, part: str
) -> None:
    compiled = part + (".unwrapped" if (part, runtime) == ("stablediffusion", "cuda") else "")
    shown = derivation(nixpkgs, engine(nixpkgs, system, runtime, [], f"parts.{compiled}"))
    found = flags(shown)
    assert found["GGML_CPU_ALL_VARIANTS"] == found["GGML_BACKEND_DL"] == "ON"
    assert found["GGML_NATIVE"] == "OFF"
    assert found["SD_BUILD_SHARED_GGML_LIB" if part == "stablediffusion" else "BUILD_SHARED_LIBS"] == "ON"
    switch = "SD_CUDA" if part == "stablediffusion" else "GGML_CUDA"
    assert found.get(switch, "OFF") == ("ON" if runtime == "cuda" else "OFF")
    # Where the kernels for each GPU are compiled.
    assert shown["env"].get("requiredSystemFeatures", "") == ("big-parallel" if runtime == "cuda" else "")


@pytest.mark.parametrize(("system", "runtime"), CPU + CUDA)
def test_an_image_needs_no_shell(nixpkgs: Nixpkgs, system: str, runtime: str) -> None:
    drv = engine(nixpkgs, system, runtime, ["stablediffusion"])
    assert inputs(nixpkgs, drv, "run.sh") == []


def test_a_header_that_the_machine_lacks_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localai, "_PACKAGES", {str(tmp_path / "none.h"): "libnone-dev", "sh": "dash"})
    with pytest.raises(UnavailableError, match=r"apt-get install libnone-dev$"):
        localai.on_debian(tmp_path / "host")


def test_the_environment_is_hermetic(nixpkgs: Nixpkgs) -> None:
    env = environment(nixpkgs, [])
    assert env["LOCALAI_GALLERIES"] == env["LOCALAI_BACKEND_GALLERIES"] == "[]"
    assert env["LOCALAI_AUTOLOAD_GALLERIES"] == env["LOCALAI_AUTOLOAD_BACKEND_GALLERIES"] == "false"
    written = {name: path for name, path in env.items() if name.endswith(("_BACKENDS_PATH", "_DIR", "_DATA_PATH"))}
    assert len(written) == 3
    assert all(path.startswith("/tmp/") for path in written.values())


def environment(nixpkgs: Nixpkgs, files: list[dict[str, str]]) -> dict[str, str]:
    argv = ["nix-instantiate", "--eval", "--json", "--strict", "--expr", ENGINE, "--attr", "env"]
    argv += ["--arg", "nixpkgs", str(nixpkgs.folder), "--argstr", "files", json.dumps(files)]
    env: dict[str, str] = json.loads(
        nixpkgs.run([*argv, "--argstr", "system", "x86_64-linux", "--argstr", "runtime", "avx2"])
    )
    return env
