"""nix/nixpkgs/local-ai: a package that nixpkgs could take as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nixpkgs.toolchain import REPOSITORY, Nixpkgs

FOLDER = REPOSITORY / "nix/nixpkgs/local-ai"
# The checkout's own packages, and this one in the place of its local-ai: as by-name calls it.
PACKAGE = """
  { nixpkgs, folder, cuda ? "" }:
  let
    pkgs = import nixpkgs {
      system = "x86_64-linux";
      overlays = [ ];
      config = if cuda == "" then { } else { cudaSupport = true; allowUnfree = true; };
    };
  in
  pkgs.callPackage (/. + folder + "/package.nix") { }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `cp -rL` makes of it: nothing points out of the folder."""
    (tmp_path / "by-name/lo").mkdir(parents=True)
    return Path(shutil.copytree(FOLDER, tmp_path / "by-name/lo/local-ai"))


@pytest.mark.parametrize("cuda", ["", "yes"])
def test_it_evaluates_by_itself(nixpkgs: Nixpkgs, folder: Path, cuda: str) -> None:
    attributes = ["tests.version", "server.webInterface", "llama-cpp", "stablediffusion"]
    drvs = nixpkgs.instantiate(PACKAGE, *attributes, folder=str(folder), cuda=cuda)
    assert len(drvs) == len(attributes)
    requisites = nixpkgs.run(["nix-store", "--query", "--requisites", *drvs])
    assert ("-cuda_nvcc-" in requisites) == (cuda == "yes")
    # Of the images alone: copies of libraries in place of references, and a server that ends with a bad config.
    assert "-unwrapped-" in requisites
    assert not re.search(r"-localai-llama-cpp-[a-z]+-[0-9a-f]{7}\.drv", requisites)
    (server,) = nixpkgs.instantiate(PACKAGE, "server", folder=str(folder), cuda=cuda)
    assert "model_config_loader.go" not in nixpkgs.derivation(server)["env"]["postPatch"]


def test_it_can_be_overridden_and_says_what_it_is(nixpkgs: Nixpkgs, folder: Path) -> None:
    package = f"(({PACKAGE}) {{ inherit nixpkgs; folder = {json.dumps(str(folder))}; }})"
    asked = f"""
      {{ nixpkgs }}:
      let it = {package}; in
      {{
        meta = [ it.meta.mainProgram it.meta.license.spdxId (builtins.length it.meta.maintainers) ];
        names = [ it.pname it.version ];
        attributes = (it.overrideAttrs {{ pname = "mine"; }}).name;
        arguments = (it.override {{ cudaSupport = false; }}).drvPath == it.drvPath;
        update = baseNameOf it.updateScript;
      }}
    """
    argv = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", asked]
    said = json.loads(nixpkgs.run([*argv, "--arg", "nixpkgs", str(nixpkgs.folder)]))
    version = json.loads((FOLDER / "pins.json").read_text())["localai"]["tag"].removeprefix("v")
    assert said["meta"] == ["local-ai", "MIT", 2]
    assert said["names"] == ["local-ai", version]
    assert said["attributes"] == f"mine-{version}"
    assert said["arguments"] is True
    assert said["update"] == "update.sh"


LLAMA, PICTURES, GGML = (letter * 40 for letter in "abc")
CURL = f"""#!/bin/sh
for url; do :; done
case $url in
  */releases/latest | */releases/tags/v9.9.9) echo '{{"tag_name": "v9.9.9", "published_at": "2027-01-02T03:04:05Z"}}' ;;
  */v9.9.9/backend/cpp/llama-cpp/Makefile) printf 'X=1\\nLLAMA_VERSION?={LLAMA}\\n' ;;
  */v9.9.9/backend/go/stablediffusion-ggml/Makefile) echo 'STABLEDIFFUSION_GGML_VERSION?={PICTURES}' ;;
  */leejet/stable-diffusion.cpp/contents/ggml?ref={PICTURES}) echo '{{"sha": "{GGML}"}}' ;;
  *) exit 22 ;;
esac
"""
# Says a hash that names what was built.
NIX_BUILD = """#!/bin/sh
for attribute; do :; done
[ "$attribute" != "$BROKEN" ] || { echo "error: no compiler" >&2; exit 1; }
echo "error: hash mismatch
  specified: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
     got:    sha256-$attribute" >&2
exit 102
"""


@pytest.fixture
def update(folder: Path, tmp_path: Path) -> list[str | Path]:
    """The update script's command, with stand-ins for the network and for Nix."""
    if not shutil.which("jq"):
        pytest.skip("jq is not installed")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "bin").mkdir()
    for name, text in (("curl", CURL), ("nix-build", NIX_BUILD)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return ["env", f"PATH={tmp_path}/bin:{os.environ['PATH']}", "bash", folder / "update.sh"]


@pytest.mark.parametrize("tag", [[], ["v9.9.9"]])
def test_it_moves_to_another_release(update: list[str | Path], folder: Path, tag: list[str]) -> None:
    done = subprocess.run([*update, *tag], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((folder / "pins.json").read_text()) == {
        "localai": {
            "tag": "v9.9.9",
            "date": "2027-01-02",
            "hash": "sha256-local-ai.source",
            "vendorHash": "sha256-local-ai.server.goModules",
            "npmDepsHash": "sha256-local-ai.server.webInterface.npmDeps",
        },
        "llama-cpp": {"rev": LLAMA, "hash": "sha256-local-ai.llama-cpp.llamaCpp"},
        "stablediffusion": {"rev": PICTURES, "hash": "sha256-local-ai.stablediffusion.stableDiffusionCpp"},
        "stablediffusion-ggml": {"rev": GGML, "hash": "sha256-local-ai.stablediffusion.ggml"},
    }


@pytest.mark.parametrize(
    ("tag", "broken", "said"), [("v1.0.0", "", ""), ("v9.9.9", "local-ai.server.goModules", "no compiler")]
)
def test_all_or_nothing_moves(update: list[str | Path], folder: Path, tag: str, broken: str, said: str) -> None:
    before = (folder / "pins.json").read_bytes()
    done = subprocess.run(
        [*update, tag], env={**os.environ, "BROKEN": broken}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert (folder / "pins.json").read_bytes() == before
    assert not (folder / "pins.json.new").exists()
