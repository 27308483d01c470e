"""What a builder says of its build, and what two builders do not agree on. With real builds: test_proof.py."""

from __future__ import annotations

import base64
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.attest import provenance, reproduce, verdict
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import materials
from aikit_nix.image import layout
from support import layouts, recipes, signed
from support.command import aikit_nix

SYSTEM = "x86_64-linux"


@pytest.fixture
def ours(tmp_path: Path, nix: None) -> dict[str, Any]:
    """Our statement of an image, as another builder reads it."""
    recipes.write(tmp_path / "flake")
    image = layout.read_layout(layouts.write(tmp_path / "image", {"/models/llama.gguf": b"weights"}, {"x": b"1"}))
    statement = reproduce.statement(materials.read(tmp_path / "flake"), SYSTEM, image)
    written = provenance.statement(verdict.REBUILD, statement, "image", image.digest or "")
    (tmp_path / "statement.json").write_text(json.dumps(written))
    return dict(reproduce.read(tmp_path / "statement.json").predicate)


def test_a_statement_has_the_digests_of_all_that_went_in_and_came_out(ours: dict[str, Any], tmp_path: Path) -> None:
    lock = tmp_path / "flake/aikit.lock"
    assert ours["inputs"]["aikit.lock"] == recipes.sha256(lock.read_bytes())
    assert "flake.nix" in ours["inputs"]
    image = layout.read_layout(tmp_path / "image/layout")
    assert (ours["image"]["manifest"], ours["image"]["configuration"]) == (image.digest, image.config_digest)
    assert [layer["digest"] for layer in ours["image"]["layers"]] == [layer.digest for layer in image.layers]


def test_builders_with_other_versions_agree(ours: dict[str, Any]) -> None:
    assert list(reproduce.differences(ours, ours | {"nix": "nix (Nix) 99", "generator": "another"})) == []


def test_whatever_else_differs_is_said_inputs_first(ours: dict[str, Any]) -> None:
    theirs = copy.deepcopy(ours)
    theirs["system"] = "aarch64-linux"
    theirs["inputs"] |= {"flake.nix": "0", "more.nix": "1"}
    theirs["image"]["layers"][1]["digest"] = "sha256:0"
    theirs["image"]["layers"].append({"digest": "sha256:1"})
    theirs["image"] |= {"manifest": "sha256:2", "configuration": "sha256:3"}
    assert [line.partition(":")[0] for line in reproduce.differences(ours, theirs)] == [
        "the system", "the input flake.nix", "the input more.nix", "the layer 2", "the layer 3", "the configuration", "the manifest",
    ]  # fmt: skip
    assert "the layer 3: none here, sha256:1 there" in list(reproduce.differences(ours, theirs))


def test_a_statement_that_lacks_something_differs_in_it(ours: dict[str, Any]) -> None:
    theirs = {"formatVersion": 1, "inputs": {}, "image": {"layers": []}}
    said = list(reproduce.differences(ours, theirs))
    assert len(said) == 1 + len(ours["inputs"]) + len(ours["image"]["layers"]) + 2


@pytest.mark.parametrize(
    "spoil",
    [
        "", "[]", "{", "[" * 100_000,
        '{"formatVersion": 9}',
        '{"formatVersion": 1, "inputs": 1, "image": {}}',
        '{"formatVersion": 1, "inputs": [], "image": {"layers": []}}',
        '{"formatVersion": 1, "inputs": ["ab"], "image": {"layers": []}}',
        '{"formatVersion": 1, "inputs": {}, "image": {"layers": "x"}}',
        '{"formatVersion": 1, "inputs": {}, "image": {"layers": [{}]}}',
        '{"formatVersion": 1, "inputs": {}, "image": {"layers": ["digest"]}}',
        '{"formatVersion": 1, "inputs": {}, "image": []}',
        '{"formatVersion": 1, "inputs": {}, "image": {"layers": []}, "unseen": 1}',
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_statement_is_refused(tmp_path: Path, spoil: str) -> None:
    if spoil.startswith('{"'):
        value = json.loads(spoil)
        spoil = json.dumps(provenance.statement(verdict.REBUILD, value, "image", "sha256:0"))
    (tmp_path / "statement.json").write_text(spoil)
    with pytest.raises(AikitError, match="statement"):
        reproduce.read(tmp_path / "statement.json")


def unseen(tmp_path: Path) -> materials.Materials:
    """A flake whose model was never on this machine."""
    recipes.write(tmp_path / "flake", os.urandom(100))
    return materials.read(tmp_path / "flake")


def rebuilt(folder: Path, found: materials.Materials, **other: Any) -> Path:
    """What a builder signed who had the model, with the key a.pub."""
    image = layout.read_layout(layouts.write(folder / "image", {"/models/llama.gguf": b"weights"}, {"x": b"1"}))
    said = provenance.statement(
        verdict.REBUILD, reproduce.statement(found, SYSTEM, image) | other, "image", image.digest or ""
    )
    return signed.bundle(folder / "statement.json", said, signed.key(folder / "a.pub"))


def test_a_claim_that_a_witness_compared_needs_no_bytes_here(tmp_path: Path, nix: None) -> None:
    found = unseen(tmp_path)
    witness = (rebuilt(tmp_path, found), tmp_path / "a.pub")
    with pytest.raises(AikitError, match=r"were never seen on this machine, .*--witness"):
        reproduce.compared(found, [], unseen=False)
    ours = reproduce.compared(found, [witness], unseen=False)
    assert [model.seen for model in ours.models] == [False]  # nor is anything else said of it from here


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"unseen": ["/models/llama.gguf"]}, "were never seen on this machine"),
        ({"unseen": "none"}, "it is of another type"),
        ({"inputs": {}}, "is of another flake or lock"),
    ],
)
def test_a_witness_that_saw_other_bytes_or_none_is_none(
    tmp_path: Path, nix: None, other: dict[str, Any], message: str
) -> None:
    found = unseen(tmp_path)
    witness = (rebuilt(tmp_path, found, **other), tmp_path / "a.pub")
    with pytest.raises(AikitError, match=message):
        reproduce.compared(found, [witness], unseen=False)


def test_a_witness_is_heard_only_with_its_own_key(tmp_path: Path, nix: None) -> None:
    found = unseen(tmp_path)
    file = rebuilt(tmp_path, found)
    signed.key(tmp_path / "b.pub")
    done = aikit_nix("reproduce", "--witness", file, tmp_path / "b.pub", cwd=tmp_path)
    assert (done.returncode, "is not signed with the key" in done.stderr) == (1, True), done.stderr
    statement = json.loads(base64.b64decode(json.loads(file.read_text())["dsseEnvelope"]["payload"]))
    file.write_text(json.dumps(statement))
    with pytest.raises(AikitError, match="is not signed with the key"):
        reproduce.compared(found, [(file, tmp_path / "a.pub")], unseen=False)
