"""The models as a ModelPack artifact: its manifest from the lock alone, and what is sent."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from aikit_nix.flakes import materials
from aikit_nix.image import modelpack
from aikit_nix.nix import store
from support import recipes
from support.command import aikit_nix


def test_the_manifest_follows_from_the_lock(tmp_path: Path) -> None:
    content = recipes.write(tmp_path, b"never in a store")
    pack = modelpack.make(materials.read(tmp_path))
    manifest = json.loads(pack.manifest)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    assert layer["digest"] == f"sha256:{recipes.sha256(content)}"
    assert layer["size"] == len(content)
    assert layer["annotations"]["org.cncf.model.filepath"] == "llama.gguf"
    (part,) = pack.blobs[0].parts or ()
    assert isinstance(part, bytes)
    assert manifest["config"]["digest"] == f"sha256:{recipes.sha256(part)}"
    assert json.loads(part) == {
        "descriptor": {
            "name": "llama",
            "sourceURL": "https://huggingface.co/TheBloke/Llama-2-7B-Chat-GGUF",
            "revision": recipes.COMMIT,
            "licenses": ["apache-2.0"],
        },
        "config": {"format": "gguf"},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"]]},
    }


@pytest.mark.usefixtures("nix")
def test_what_was_pushed_can_be_locked_and_is_not_sent_again(tmp_path: Path, address: str) -> None:
    content = recipes.write(tmp_path, os.urandom(100_000))
    file = tmp_path / "llama.gguf"
    file.write_bytes(content)
    store.add(file, "llama.gguf", recipes.sha256(content))
    first = aikit_nix("push", "--flake", ".", "--modelpack", f"{address}/a/llama:1", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "2 blobs: 2 sent (100.3 kB)" in first.stderr
    again = aikit_nix("push", "--flake", ".", "--modelpack", f"{address}/a/llama:2", cwd=tmp_path)
    assert "2 blobs: 2 there already\n" in again.stderr
    assert again.stdout.rpartition("@")[2] == first.stdout.rpartition("@")[2]

    (tmp_path / "user").mkdir()
    (tmp_path / "user/aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nmodels:\n  - {{name: llama, source: 'oci://{address}/a/llama:1'}}\n"
    )
    done = aikit_nix("lock", cwd=tmp_path / "user")
    assert done.returncode == 0, done.stderr
    (model,) = json.loads((tmp_path / "user/aikit.lock").read_text())["models"]
    (locked,) = model["files"]
    assert (locked["path"], locked["sha256"]) == ("/models/llama.gguf", recipes.sha256(content))


def test_a_model_that_the_registry_has_is_not_needed_here(tmp_path: Path, address: str) -> None:
    content = recipes.write(tmp_path, os.urandom(1000))
    done = aikit_nix("push", "--flake", ".", "--modelpack", f"{address}/a/llama:1", cwd=tmp_path)
    assert done.returncode == 1
    assert " is neither in " in done.stderr
    assert not (tmp_path / "registry/data/docker/registry/v2/repositories/a/llama/_manifests").exists()
    upload(address, content)
    done = aikit_nix("push", "--flake", ".", "--modelpack", f"{address}/a/llama:1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def upload(address: str, content: bytes) -> None:
    begin = urllib.request.Request(f"http://{address}/v2/a/llama/blobs/uploads/", b"", method="POST")
    with urllib.request.urlopen(begin) as answer:
        location = answer.headers["Location"]
    put = urllib.request.Request(f"{location}&digest=sha256:{recipes.sha256(content)}", content, method="PUT")
    put.add_header("Content-Type", "application/octet-stream")
    urllib.request.urlopen(put).close()
