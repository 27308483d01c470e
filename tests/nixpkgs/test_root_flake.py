"""The project's own flake evaluates against real nixpkgs, and pins what generated flakes pin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nixpkgs import plans
from nixpkgs.toolchain import REPOSITORY, NixError, Nixpkgs
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
    made = self.lib.mkImage {{
      pkgs = input.legacyPackages.x86_64-linux;
      plan = builtins.fromJSON plan;
    }};
    made-for-avx = self.lib.mkImage {{
      pkgs = input.legacyPackages.x86_64-linux;
      plan = builtins.fromJSON plan;
      runtime = "avx";
    }};
  }}
"""


def test_it_pins_what_generated_flakes_pin() -> None:
    lock = (REPOSITORY / "flake.lock").read_bytes()
    assert lock == (REPOSITORY / "templates/flake.lock").read_bytes()
    branch = json.loads(lock)["nodes"]["nixpkgs"]["original"]["ref"]
    assert f'"github:NixOS/nixpkgs/{branch}"' in (REPOSITORY / "flake.nix").read_text()


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-linux"])
def test_every_output_instantiates(nixpkgs: Nixpkgs, system: str) -> None:
    outputs = (
        "packages.{}.default",
        "devShells.{}.default",
        "checks.{}.package",
        "checks.{}.format",
        "checks.{}.plans",
        "formatter.{}",
    )
    drvs = nixpkgs.instantiate(FLAKE, *(output.format(system) for output in outputs))
    assert len(drvs) == len(outputs)


def test_the_library_gives_a_generated_flakes_outputs(nixpkgs: Nixpkgs) -> None:
    attribute = "packages.x86_64-linux.default"
    from_library = nixpkgs.instantiate(FLAKE, f"generated.{attribute}", plan=plans.plan())
    assert from_library == nixpkgs.instantiate(plans.OUTPUTS, attribute, plan=plans.plan())


def test_an_image_is_made_with_the_callers_nixpkgs(nixpkgs: Nixpkgs) -> None:
    for output in ("image", "oci", "manifest", "stream"):
        attribute = {"image": "default"}.get(output, output)
        made = nixpkgs.instantiate(FLAKE, f"made.{output}", plan=plans.plan())
        assert made == nixpkgs.instantiate(plans.OUTPUTS, f"packages.x86_64-linux.{attribute}", plan=plans.plan())
    of_a_runtime = nixpkgs.instantiate(FLAKE, "made-for-avx.image", plan=plans.plan())
    assert of_a_runtime == nixpkgs.instantiate(plans.OUTPUTS, "packages.x86_64-linux.image-avx", plan=plans.plan())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formatVersion": 1}, "plans of format 2"),
        ({"packages": "debian"}, "takes its packages from debian"),
        ({"systems": {"x86_64-linux": {"default": "cuda", "runtimes": ["cuda"]}}}, "config.cudaSupport"),
    ],
)
def test_what_no_image_can_be_made_of_is_refused(nixpkgs: Nixpkgs, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NixError, match=message):
        nixpkgs.instantiate(FLAKE, "made.image", plan=plans.plan(**changes))


@pytest.mark.parametrize("engine", ["localai", "llama-server"])
def test_the_template_becomes_an_image(nixpkgs: Nixpkgs, tmp_path: Path, engine: str) -> None:
    starter = REPOSITORY / "templates/starter/aikitfile.yaml"
    done = aikit_nix("gen", starter, "--engine", engine, "--flake", "out", cwd=tmp_path, env=dict(nixpkgs.env))
    assert done.returncode == 0, done.stderr
    plan = (tmp_path / "out/aikit/plan.json").read_text()
    (drv,) = nixpkgs.instantiate(plans.OUTPUTS, "packages.x86_64-linux.default", plan=plan)
    assert drv.endswith("-llama-2-7b-chat-oci.drv")
