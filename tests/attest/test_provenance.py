"""SLSA provenance: every input by its digest, from flake and lock alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aikit_nix.attest import provenance
from aikit_nix.debian import lock as debian
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from support import recipes

SYSTEM = "x86_64-linux"


def test_provenance_names_every_input(tmp_path: Path) -> None:
    content = recipes.write(tmp_path)
    found = provenance.predicate(materials.read(tmp_path), SYSTEM, "nix (Nix) 2.8.0")
    inputs = {each["name"]: each for each in found["buildDefinition"]["resolvedDependencies"]}
    assert inputs["/models/llama.gguf"]["digest"]["sha256"] == recipes.sha256(content)
    assert inputs["aikit.lock"]["digest"]["sha256"] == recipes.sha256((tmp_path / "aikit.lock").read_bytes())
    assert inputs["aikit/plan.json"]["digest"]["sha256"] == recipes.sha256((tmp_path / "aikit/plan.json").read_bytes())
    assert inputs["libllama0"]["downloadLocation"].startswith(debian.SNAPSHOT)
    assert inputs["patchelf"]["annotations"] == {"role": "tool"}
    given = found["buildDefinition"]["externalParameters"]
    assert given["aikitfile"]["digest"]["sha256"] == recipes.sha256((tmp_path / "aikitfile.yaml").read_bytes())
    assert found["runDetails"]["builder"]["version"]["nix"] == "nix (Nix) 2.8.0"


@pytest.mark.parametrize("packages", list(Packages))
def test_every_input_has_a_digest_and_a_name_of_its_own(tmp_path: Path, packages: Packages) -> None:
    """Who verifies it looks them up by these."""
    recipes.write(tmp_path, packages=packages)
    inputs = provenance.predicate(materials.read(tmp_path), SYSTEM)["buildDefinition"]["resolvedDependencies"]
    assert all(len(digest) == 64 for each in inputs for digest in each["digest"].values())
    by_role = [(each["name"], each.get("annotations", {}).get("role")) for each in inputs]
    assert len(set(by_role)) == len(by_role) > 5


def test_a_statement_is_about_a_manifests_digest() -> None:
    said = provenance.statement("https://example.com/type", {"a": 1}, "ghcr.io/me/llama", "sha256:" + "0" * 64)
    assert said == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "ghcr.io/me/llama", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://example.com/type",
        "predicate": {"a": 1},
    }


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two attestations of one image are then one in its registry."""
    texts = []
    for folder in ("a", "b"):
        recipes.write(tmp_path / folder)
        texts.append(provenance.encode(provenance.predicate(materials.read(tmp_path / folder), SYSTEM)))
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["runDetails"]["builder"]["version"].keys() == {"aikit-nix"}  # Nix was not asked


def test_the_digest_of_the_aikitfile_is_of_the_file(tmp_path: Path) -> None:
    """A label says anything: without a file that has that digest, none is stated."""
    recipes.write(tmp_path)
    plan = tmp_path / "aikit/plan.json"
    right = recipes.sha256((tmp_path / "aikitfile.yaml").read_bytes())
    assert right in plan.read_text()
    plan.write_text(plan.read_text().replace(right, "5" * 64))
    assert "5" * 64 not in provenance.encode(provenance.predicate(materials.read(tmp_path), "x86_64-linux"))
