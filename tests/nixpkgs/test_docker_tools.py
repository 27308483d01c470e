"""nixpkgs' own dockerTools under nix/image.nix: the image of an engine that compiles nothing, built in the sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.models import layer as model_layer
from nixpkgs import plans
from nixpkgs.toolchain import REPOSITORY, Nixpkgs
from support.image import unpack
from support.library import Library

IMAGE = f"""
  {{ nixpkgs, plan }}:
  let
    pkgs = import nixpkgs {{ system = "x86_64-linux"; config = {{ }}; overlays = [ ]; }};
    server = pkgs.writeTextDir "bin/server" "an engine";
  in
  import {REPOSITORY}/nix/image.nix {{
    inherit pkgs;
    plan = builtins.fromJSON plan;
    runtime = "avx2";
    engine = {{
      name = "server";
      package = server;
      bin = "${{server}}/bin/server";
      license = "MIT";
      env.FOLDER = "${{pkgs.writeTextDir "data" "found through the environment alone"}}";
    }};
  }}
"""
CONTENT = b"weights" * 1000


def model(folder: Path, nixpkgs: Nixpkgs, *, known: bool) -> dict[str, Any]:
    """A local model's part of a plan."""
    file = folder / "tiny.gguf"
    file.write_bytes(CONTENT)
    nixpkgs.run(["nix-store", "--add-fixed", "sha256", str(file)])
    sha256 = nixpkgs.run(["nix-hash", "--flat", "--base16", "--type", "sha256", str(file)]).strip()
    found = {
        "path": "/models/a/tiny.gguf",
        "name": "tiny.gguf",
        "url": None,
        "sha256": sha256,
        "fetch": "Put it there.",
    }
    layer = model_layer.describe("/models/a/tiny.gguf", file) if known else None
    return {**found, "size": len(CONTENT) if known else None, "layer": layer}


def build(nixpkgs: Nixpkgs, output: str, **changes: Any) -> Path:
    (drv,) = nixpkgs.instantiate(IMAGE, output, plan=plans.plan(**changes))
    return Path(nixpkgs.run(["nix-store", "--realise", drv]).strip())


def test_every_form_is_the_same_image(debian_nixpkgs: Nixpkgs, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"models": [model(tmp_path, debian_nixpkgs, known=True)]}
    manifest, oci, image, stream = (
        build(debian_nixpkgs, output, **changes) for output in ("manifest", "oci", "archive", "stream")
    )
    assert (manifest / "index.json").read_bytes() == (oci / "index.json").read_bytes()
    layout, archive = unpack(oci), unpack(image, tmp_path / "root")
    assert (layout.digest, layout.layers) == (archive.digest, archive.layers)
    streamed = subprocess.run([stream], capture_output=True, check=True).stdout
    assert streamed == image.read_bytes()

    bottom, *stored, fixed, texts = archive.layers
    assert bottom.files == ("/models/a/tiny.gguf",)
    assert bottom.digest == model_layer.describe("/models/a/tiny.gguf", tmp_path / "tiny.gguf")["digest"]
    assert {path.split("-", 1)[1] for layer in stored for path in layer.store_paths} == {
        "aikit-nix",
        "server",
        "data",
        "host-cacert",
    }
    assert {"/usr/bin/server", "/etc/passwd"} < set(fixed.files)
    assert texts.files == ("/config.yaml", "/models/model.file")
    assert (tmp_path / "root/models/model.file").read_bytes() == CONTENT
    assert (tmp_path / "root/tmp").stat().st_mode & 0o1777 == 0o1777
    assert (tmp_path / "root/config.yaml").stat().st_mode & 0o777 == 0o644

    requisites = debian_nixpkgs.run(["nix-store", "--query", "--requisites", str(manifest)])
    assert "gguf" not in requisites
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)  # for pytest to remove it


def test_a_layer_that_is_not_known_yet_is_computed(debian_nixpkgs: Nixpkgs, tmp_path: Path) -> None:
    known, unknown = (
        {"models": [model(tmp_path, debian_nixpkgs, known=known)], "image": {"name": "x/y", "tag": "1", "labels": {}}}
        for known in (True, False)
    )
    index = [(build(debian_nixpkgs, "oci", **changes) / "index.json").read_bytes() for changes in (known, unknown)]
    assert index[0] == index[1]
    assert json.loads(index[0])["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/x/y:1"


@pytest.mark.parametrize("known", [True, False])
def test_a_models_layer_is_the_same_blob_as_in_the_debian_set(
    debian_nixpkgs: Nixpkgs, library: Library, tmp_path: Path, known: bool
) -> None:
    models = [model(tmp_path, debian_nixpkgs, known=known)]
    ours = unpack(build(debian_nixpkgs, "oci", models=models))
    subprocess.run(["nix-store", "--add-fixed", "sha256", tmp_path / "tiny.gguf"], check=True, capture_output=True)
    theirs = unpack(library.build("oci", models=models))
    assert ours.layers[0] == theirs.layers[0]
    assert ours.layers[1] != theirs.layers[1]


def test_a_text_changes_the_last_layer_only(debian_nixpkgs: Nixpkgs, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"models": [model(tmp_path, debian_nixpkgs, known=True)]}
    texts = [[{"path": "/config.yaml", "text": text}] for text in ("one", "two")]
    one, two = (unpack(build(debian_nixpkgs, "oci", **changes, files=files)) for files in texts)
    assert one.layers[:-1] == two.layers[:-1]
    assert one.layers[-1].digest != two.layers[-1].digest


@pytest.mark.parametrize("output", ["manifest", "oci", "stream", "image"])
def test_a_second_build_gives_the_same(debian_nixpkgs: Nixpkgs, tmp_path: Path, output: str) -> None:
    changes: dict[str, Any] = {"models": [model(tmp_path, debian_nixpkgs, known=True)]}
    (drv,) = debian_nixpkgs.instantiate(IMAGE, output, plan=plans.plan(**changes))
    first = debian_nixpkgs.run(["nix-store", "--realise", drv])
    assert debian_nixpkgs.run(["nix-store", "--realise", "--check", drv]) == first
