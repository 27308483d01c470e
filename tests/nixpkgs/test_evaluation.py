"""The real nixpkgs, unmodified, evaluates everything that a generated flake offers. Nothing is built."""

from __future__ import annotations

import pytest

from aikit_nix.nix import store
from nixpkgs import plans
from nixpkgs.toolchain import Nixpkgs

PLATFORMS = [(system, runtime) for system, offered in plans.SYSTEMS.items() for runtime in offered["runtimes"]]

Engines = dict[tuple[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def engines(nixpkgs: Nixpkgs) -> Engines:
    """For each system and runtime: what the builder of the engine gets as its environment."""
    environments = {}
    for system, runtime in PLATFORMS:
        systems = {system: {"default": runtime, "runtimes": [runtime]}}
        attribute = f"packages.{system}.engine{'.unwrapped' if runtime == 'cuda' else ''}"
        (drv,) = nixpkgs.instantiate(plans.OUTPUTS, attribute, plan=plans.plan(systems=systems))
        environments[system, runtime] = dict(nixpkgs.derivation(drv)["env"])
    return environments


def flags(env: dict[str, str]) -> dict[str, str]:
    """cmake's settings; as for cmake, the last of a name counts."""
    pairs = (flag.removeprefix("-D").partition("=") for flag in env["cmakeFlags"].split())
    return {name.split(":")[0]: {"TRUE": "ON", "FALSE": "OFF"}.get(value, value) for name, _, value in pairs}


@pytest.mark.parametrize("system", plans.SYSTEMS)
def test_every_output_instantiates(nixpkgs: Nixpkgs, system: str) -> None:
    runtimes = plans.SYSTEMS[system]["runtimes"]
    names = [
        "default",
        "stream",
        "oci",
        "manifest",
        "engine",
        "models",
        "config",
        *(f"image-{name}" for name in runtimes),
    ]
    attributes = [f"packages.{system}.{name}" for name in names] + [f"checks.{system}.serves"]
    drvs = nixpkgs.instantiate(plans.OUTPUTS, *attributes, plan=plans.plan())
    assert len(drvs) == len(attributes)
    images = drvs[len(names) - len(runtimes) : len(names)]
    assert len(set(images)) == len(runtimes), "each runtime is an image of its own"
    assert drvs[0] in images, "the default image is its runtime's"


INSTRUCTION_SETS = {
    "avx": {"SSE42", "AVX"},
    "avx2": {"SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2"},
    "avx512": {"SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX512"},
}


@pytest.mark.parametrize("runtime", INSTRUCTION_SETS)
def test_a_cpu_runtime_is_compiled_for_its_instructions_and_no_others(engines: Engines, runtime: str) -> None:
    found = flags(engines["x86_64-linux", runtime])
    named = {"SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX512", "AVX_VNNI"}
    assert {name for name in named if found[f"GGML_{name}"] == "ON"} == INSTRUCTION_SETS[runtime]
    assert found["GGML_NATIVE"] == found["GGML_CUDA"] == found["GGML_BLAS"] == "OFF"
    assert "GGML_CPU_ALL_VARIANTS" not in found


@pytest.mark.parametrize(("system", "runtime"), [("aarch64-linux", "cpu"), *((s, "cuda") for s in plans.SYSTEMS)])
def test_other_runtimes_take_the_best_cpu_backend_at_run_time(engines: Engines, system: str, runtime: str) -> None:
    found = flags(engines[system, runtime])
    assert found["GGML_CPU_ALL_VARIANTS"] == found["GGML_BACKEND_DL"] == "ON"
    assert found["GGML_NATIVE"] == "OFF"
    assert found["GGML_CUDA"] == ("ON" if runtime == "cuda" else "OFF")


@pytest.mark.parametrize("system", plans.SYSTEMS)
def test_cuda_is_nixpkgs_own(engines: Engines, system: str) -> None:
    env = engines[system, "cuda"]
    assert "libcublas" in env["buildInputs"]
    assert "cuda_nvcc" in env["nativeBuildInputs"]
    assert flags(env)["CMAKE_CUDA_ARCHITECTURES"].count(";") >= 5
    assert env["requiredSystemFeatures"] == "big-parallel"


@pytest.mark.parametrize(("system", "runtime"), PLATFORMS)
def test_the_server_is_built_without_node_and_openssl(engines: Engines, system: str, runtime: str) -> None:
    env = engines[system, runtime]
    inputs = env["nativeBuildInputs"] + env["buildInputs"]
    assert "node" not in inputs
    assert "npm" not in inputs
    assert "openssl" not in inputs


def test_a_model_is_a_fixed_output_named_by_its_file(nixpkgs: Nixpkgs) -> None:
    attribute = "packages.x86_64-linux.models"
    (drv,) = nixpkgs.instantiate(plans.OUTPUTS, attribute, plan=plans.plan())
    requisites = nixpkgs.run(["nix-store", "--query", "--requisites", drv]).splitlines()
    (model,) = (path for path in requisites if path.endswith("-tiny.gguf.drv"))
    assert nixpkgs.run(["nix-store", "--query", "--outputs", model]).split() == [
        str(store.store_path("tiny.gguf", "0" * 64))
    ]


def test_a_local_model_needs_no_setting_of_the_user(nixpkgs: Nixpkgs) -> None:
    """nixpkgs' requireFile would call it unfree."""
    model = {"path": "/models/m.gguf", "name": "m.gguf", "url": None, "sha256": "0" * 64, "fetch": "Put it there."}
    model |= {"size": None, "layer": None}
    assert nixpkgs.instantiate(plans.OUTPUTS, "packages.x86_64-linux.default", plan=plans.plan(models=[model]))
