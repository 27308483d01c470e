"""Which files of the Nix library a flake gets, and that they are enough."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base import data
from aikit_nix.base.targets import Runtime
from aikit_nix.flakes import library
from aikit_nix.flakes.plan import Engine, Options, Packages, Plan, make
from nixpkgs.toolchain import Nixpkgs
from support.flakes import PINNED

NIXPKGS = '{ nixpkgs, folder }: import (/. + folder) { inherit nixpkgs; plan = builtins.fromJSON (builtins.readFile (/. + folder + "/plan.json")); }'


def planned(packages: Packages, engine: Engine | None = None, backends: tuple[str, ...] = ()) -> Plan:
    plan, _ = make(parse(PINNED, "aikitfile.yaml")[0], Options(packages=packages, engine=engine))
    return dataclasses.replace(plan, backends=backends)


DEBIAN = planned(Packages.DEBIAN)
KINDS = {
    "llama-server": planned(Packages.NIXPKGS, Engine.LLAMA_SERVER),
    "localai": planned(Packages.NIXPKGS),
    "stablediffusion": planned(Packages.NIXPKGS, backends=("stablediffusion",)),
    "exllama2": make(parse(PINNED + b"backends: [exllama2]\n", "aikitfile.yaml")[0], Options(runtime=Runtime.CUDA))[0],
}


def write(plan: Plan, folder: Path) -> Path:
    for path, content in library.files(plan).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "plan.json").write_text(plan.to_json())
    return folder


def test_a_debian_flake_has_nothing_of_nixpkgs() -> None:
    found = set(library.files(DEBIAN))
    assert {"default.nix", "image.nix", "image/model_layer.py", "packages/debian/lock.json"} < found
    nixpkgs = ("engines/", "image/layers.py", "packages/nixpkgs", "pins.json", "start/start.c")
    assert not [path for path in found if path.startswith(nixpkgs)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_nixpkgs_flake_has_nothing_of_debian(kind: str) -> None:
    found = library.files(KINDS[kind])
    assert not [path for path in found if "debian" in path]
    assert sum(map(len, found.values())) < (110_000 if kind == "exllama2" else 80_000)


def test_a_backend_comes_with_who_asked_for_it() -> None:
    assert "engines/localai/stablediffusion.nix" not in library.files(KINDS["localai"])
    assert "engines/localai/stablediffusion.nix" in library.files(KINDS["stablediffusion"])
    assert not [path for path in library.files(KINDS["localai"]) if "exllama2" in path]
    assert "engines/localai/exllama2/wheels.json" in library.files(KINDS["exllama2"])
    assert "engines/localai/server.nix" not in library.files(KINDS["llama-server"])


def test_no_flake_has_what_is_for_others() -> None:
    paths = {path for plan in (DEBIAN, *KINDS.values()) for path in library.files(plan)}
    assert not [path for path in paths if path.startswith("lib/") or "module" in path or path.endswith("build.sh")]
    assert all((data.NIX / apart).exists() for apart in (*library._APART, *library._OF))


def test_the_files_are_the_librarys_own() -> None:
    for path, content in library.files(DEBIAN).items():
        assert (data.NIX / path).read_bytes() == content


@pytest.mark.usefixtures("nix")
def test_a_debian_flakes_files_are_enough(tmp_path: Path) -> None:
    folder = write(DEBIAN, tmp_path / "aikit")
    expression = f"import {folder} {{ plan = builtins.fromJSON (builtins.readFile {folder}/plan.json); }}"
    evaluated = ["packages", "checks"]
    for output in evaluated:
        argv = ["nix-instantiate", "--expr", f"({expression}).{output}.x86_64-linux"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    asked = "mapAttrs (_: app: app.meta.description) flake.apps.x86_64-linux"
    asked += "// mapAttrs (_: package: package.meta.description) flake.packages.x86_64-linux"
    argv = ["nix-instantiate", "--eval", "--strict", "--json", "--expr"]
    argv += [f"with builtins; let flake = {expression}; in {asked}"]
    said = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert {"load", "push", "run", "default", "oci", "manifest", "engine", "image-avx2"} < set(said)
    version = json.loads((data.NIX / "packages/debian/lock.json").read_text())
    version = version["architectures"]["amd64"]["packages"]["llama.cpp-tools"]["version"]
    assert said["image-avx2"] == f"m:avx2, llama-server {version} for avx2: the OCI layout"
    # `nix run`
    argv[-1] = f"with ({expression}).apps.x86_64-linux; default == run"
    assert json.loads(subprocess.run(argv, capture_output=True, check=True).stdout) is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_nixpkgs_flakes_files_are_enough(nixpkgs: Nixpkgs, tmp_path: Path, kind: str) -> None:
    folder = write(KINDS[kind], tmp_path / "aikit")
    attributes = [f"packages.{system}.{output}" for system in KINDS[kind].systems for output in ("default", "oci")]
    attributes += ["packages.x86_64-linux.image-cuda", "checks.x86_64-linux.serves", "formatter.x86_64-linux"]
    assert len(nixpkgs.instantiate(NIXPKGS, *attributes, folder=str(folder))) == len(attributes)
