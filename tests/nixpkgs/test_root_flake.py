"""The project's own flake evaluates against real nixpkgs, and pins what generated flakes pin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nixpkgs import plans
from nixpkgs.toolchain import REPOSITORY, Nixpkgs
from support.command import aikit_nix

# The flake's outputs without Nix copying a whole nixpkgs into its store first.
FLAKE = f"""
  {{ nixpkgs, plan ? "" }}:
  let
    input = {{
      outPath = nixpkgs;
      lib = import (nixpkgs + "/lib");
      legacyPackages = input.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system: import nixpkgs {{ inherit system; config = {{ }}; overlays = [ ]; }}
      );
    }};
    self = (import {REPOSITORY}/flake.nix).outputs {{ inherit self; nixpkgs = input; }};
  in
  self // {{
    generated = self.lib.fromPlan {{ inherit nixpkgs; plan = builtins.fromJSON plan; }};
  }}
"""


def test_it_pins_what_generated_flakes_pin() -> None:
    lock = (REPOSITORY / "flake.lock").read_bytes()
    assert lock == (REPOSITORY / "templates/flake.lock").read_bytes()
    revision = json.loads(lock)["nodes"]["nixpkgs"]["locked"]["rev"]
    assert f'"github:NixOS/nixpkgs/{revision}"' in (REPOSITORY / "flake.nix").read_text()


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-linux"])
def test_every_output_instantiates(nixpkgs: Nixpkgs, system: str) -> None:
    outputs = (
        "packages.{}.default",
        "devShells.{}.default",
        "checks.{}.package",
        "checks.{}.format",
        "formatter.{}",
    )
    drvs = nixpkgs.instantiate(FLAKE, *(output.format(system) for output in outputs))
    assert len(drvs) == len(outputs)


def test_the_library_gives_a_generated_flakes_outputs(nixpkgs: Nixpkgs) -> None:
    attribute = "packages.x86_64-linux.default"
    from_library = nixpkgs.instantiate(FLAKE, f"generated.{attribute}", plan=plans.plan())
    assert from_library == nixpkgs.instantiate(plans.OUTPUTS, attribute, plan=plans.plan())


@pytest.mark.parametrize("engine", ["localai", "llama-server"])
def test_the_template_becomes_an_image(nixpkgs: Nixpkgs, tmp_path: Path, engine: str) -> None:
    starter = REPOSITORY / "templates/starter/aikitfile.yaml"
    done = aikit_nix("gen", starter, "--engine", engine, "-o", "out", cwd=tmp_path, env=dict(nixpkgs.env))
    assert done.returncode == 0, done.stderr
    plan = (tmp_path / "out/aikit.json").read_text()
    (drv,) = nixpkgs.instantiate(plans.OUTPUTS, "packages.x86_64-linux.default", plan=plan)
    assert drv.endswith("-llama-2-7b-chat.tar.drv")
