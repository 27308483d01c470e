"""One statement a model: where it comes from, what its origin says of it, and what was checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aikit_nix.attest import ingestion, provenance
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from support import recipes


def test_a_model_of_hugging_face(tmp_path: Path, nix: None) -> None:
    content = recipes.write(tmp_path)
    read = materials.read(tmp_path)
    (found,) = ingestion.statements(read)
    model = read.models[0]
    assert found["subject"] == [
        {"name": "/models/llama.gguf", "digest": {"sha256": recipes.sha256(content), "blake3": model.blake3}}
    ]
    predicate = found["predicate"]
    assert predicate["source"] == {
        "kind": "huggingface",
        "purl": f"pkg:huggingface/TheBloke/Llama-2-7B-Chat-GGUF@{recipes.COMMIT}",
        "downloadLocation": model.url,
        "repository": "TheBloke/Llama-2-7B-Chat-GGUF",
        "revision": recipes.COMMIT,
    }
    assert predicate["claimedByOrigin"] == {
        "license": "apache-2.0",
        "baseModels": ["meta-llama/Llama-2-7b-chat-hf"],
    }
    assert model.file.layer
    assert predicate["checkedAgainstBytes"]["layer"] == model.file.layer.digest
    again = [provenance.encode(each) for each in ingestion.statements(materials.read(tmp_path))]
    assert again == [provenance.encode(found)]


def test_what_was_never_seen_is_said_to_be_unseen(tmp_path: Path, nix: None) -> None:
    recipes.write(tmp_path, b"nobody has these bytes in a store")
    (found,) = ingestion.statements(materials.read(tmp_path).compared(unseen=True))
    assert "checkedAgainstBytes" not in found["predicate"]
    assert found["predicate"]["unseen"]["sha256"]


def test_of_what_was_never_seen_not_even_the_size_was_checked(tmp_path: Path, nix: None) -> None:
    """Of a model that was locked and not fetched, nothing is claimed but hash and size: `attest` may go on, and build it."""
    recipes.write(tmp_path, b"nor has anybody these")
    lock = json.loads((tmp_path / "aikit.lock").read_text())
    (file,) = lock["models"][0]["files"]
    recipes.change(tmp_path / "aikit.lock", models=[lock["models"][0] | {"files": [_bare(file)]}])
    recipes.render(tmp_path, packages=Packages.DEBIAN)
    (found,) = ingestion.statements(materials.read(tmp_path).compared(unseen=False))
    assert found["predicate"]["unseen"] == {"sha256": file["sha256"], "size": 1}
    assert "checkedAgainstBytes" not in found["predicate"]


def _bare(file: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name not in ("blake3", "layer")} | {"size": 1}


def test_of_a_model_without_a_lock_only_its_hash_is_known(tmp_path: Path, nix: None) -> None:
    content = recipes.write(tmp_path)
    (tmp_path / "aikit.lock").unlink()
    (found,) = ingestion.statements(materials.read(tmp_path))
    assert found["subject"][0]["digest"] == {"sha256": recipes.sha256(content)}
    assert found["predicate"]["source"]["kind"] == "unknown"
    assert found["predicate"]["claimedByOrigin"] == {}
