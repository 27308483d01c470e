"""Bills of materials: what they name, that they are valid, and that they are made from flake and lock alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.attest import sbom
from aikit_nix.base.hashing import hash_file
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.nix import store
from support import layouts, recipes
from support.command import aikit_nix

SYSTEM = "x86_64-linux"


def bill(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.cyclonedx(materials.read(folder), SYSTEM))
    return found


def test_a_model_is_a_component_with_its_origin(tmp_path: Path) -> None:
    content = recipes.write(tmp_path)
    (tmp_path / "copy").write_bytes(content)
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    assert found["name"] == "llama.gguf"
    assert found["purl"] == f"pkg:huggingface/TheBloke/Llama-2-7B-Chat-GGUF@{recipes.COMMIT}"
    assert {each["alg"]: each["content"] for each in found["hashes"]} == {
        "SHA-256": recipes.sha256(content),
        "BLAKE3": hash_file(tmp_path / "copy").blake3,
    }
    assert found["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]
    assert found["pedigree"]["ancestors"][0]["purl"] == "pkg:huggingface/meta-llama/Llama-2-7b-chat-hf"
    assert found["externalReferences"][0]["url"].startswith("https://huggingface.co/TheBloke/")


def test_a_licence_that_spdx_does_not_know_keeps_its_name(tmp_path: Path) -> None:
    recipes.write(tmp_path, origin={"license": "llama2"})
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    assert found["licenses"] == [{"license": {"name": "llama2", "acknowledgement": "declared"}}]


def test_a_repository_without_a_name_has_no_place_in_a_purl(tmp_path: Path) -> None:
    """Base models are what a model's card says on Hugging Face, which anybody writes."""
    recipes.write(tmp_path, origin={"base_models": ("b/", "/", "c//d")})
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    ancestors = {each["name"]: each.get("purl") for each in found["pedigree"]["ancestors"]}
    assert ancestors == {"b/": None, "/": None, "c//d": "pkg:huggingface/c/d"}


def test_every_deb_in_the_image_is_a_component(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    found = {each["name"]: each for each in bill(tmp_path)["components"]}
    pinned = {package.name: package for package in materials.read(tmp_path).debs(SYSTEM)}
    assert set(found) == {*pinned, "llama.gguf"}
    assert {"libllama0", "libc6", "ca-certificates"} <= set(pinned)
    assert "patchelf" not in pinned  # it only builds the image
    llama = found["llama.cpp-tools"]
    version = pinned["llama.cpp-tools"].version.replace("+", "%2B")
    assert llama["purl"] == f"pkg:deb/debian/llama.cpp-tools@{version}?arch=amd64&distro=debian-sid"
    assert llama["hashes"] == [{"alg": "SHA-256", "content": pinned["llama.cpp-tools"].sha256}]


def test_what_nixpkgs_compiles_is_named_by_its_sources(tmp_path: Path) -> None:
    recipes.write(tmp_path, packages=Packages.NIXPKGS)
    found = {each["name"]: each for each in bill(tmp_path)["components"]}
    pins = json.loads((tmp_path / "aikit/pins.json").read_text())
    assert set(found) == {"llama.gguf", "LocalAI", "llama.cpp", "nixpkgs"}
    assert found["LocalAI"]["purl"] == f"pkg:github/mudler/LocalAI@{pins['localai']['tag']}".replace(
        "LocalAI", "localai"
    )
    assert found["nixpkgs"]["version"] == "716c7a2664ca8325617b8a7fbb609273f2c4cae7"
    assert found["nixpkgs"]["properties"][0]["name"] == "nix:narHash"


@pytest.mark.parametrize("packages", list(Packages))
def test_it_is_valid_cyclonedx(tmp_path: Path, packages: Packages) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    recipes.write(tmp_path, packages=packages)
    text = sbom.cyclonedx(materials.read(tmp_path), SYSTEM)
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text.replace('"sha', '"x').replace("SHA-256", "no"))


def test_the_same_recipe_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        recipes.write(tmp_path / folder)
    recipes.write(tmp_path / "c", b"other weights")
    a, b, c = (sbom.cyclonedx(materials.read(tmp_path / folder), SYSTEM) for folder in "abc")
    assert a == b
    assert json.loads(a)["serialNumber"] != json.loads(c)["serialNumber"]


def test_without_a_lock_the_plan_alone_is_enough(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    (tmp_path / "aikit.lock").unlink()
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    assert [each["alg"] for each in found["hashes"]] == ["SHA-256"]


def test_a_lock_of_other_bytes_says_nothing_of_these(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    lock = tmp_path / "aikit.lock"
    lock.write_text(lock.read_text().replace(recipes.sha256(b"weights"), "0" * 64))
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    assert "purl" not in found


def test_the_commands(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    done = aikit_nix("sbom", "--system", SYSTEM, "-o", "sbom.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "wrote sbom.json\n"), done.stderr
    assert json.loads((tmp_path / "sbom.json").read_text()) == bill(tmp_path / "flake")
    done = aikit_nix("sbom", "--flake", "aikit", cwd=tmp_path)
    assert done.returncode == 1
    assert "aikit is not there: run `aikit-nix gen`" in done.stderr
    layouts.make(tmp_path / "result", {})
    for folder, said in (("result", "is an OCI layout, and no flake: run"), (".", "holds no flake of aikit-nix: run")):
        done = aikit_nix("sbom", "--flake", folder, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    done = aikit_nix("sbom", "--system", "aarch64-linux", cwd=tmp_path)
    assert done.returncode == 1
    assert "has no image for aarch64-linux" in done.stderr


def test_every_component_has_what_the_ntia_wants(tmp_path: Path, nix: None) -> None:
    """Supplier, name, version, another identifier, a place in the tree; author and date of the whole."""
    recipes.write(tmp_path)
    found = bill(tmp_path)
    (tmp_path / "aikit.lock").unlink()
    (alone,) = [each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model"]
    assert (alone["version"], alone["supplier"]["name"]) == (f"sha256:{alone['hashes'][0]['content']}", "unknown")
    assert found["specVersion"] == "1.7"
    assert found["metadata"]["authors"]
    assert found["metadata"]["timestamp"]
    (tree,) = [each for each in found["dependencies"] if each["ref"] == "image"]
    for each in found["components"]:
        assert each["supplier"]["name"]
        assert each["name"]
        assert each["version"]
        assert each["purl"]
        assert each["licenses"]
        assert each["bom-ref"] in tree["dependsOn"]


@pytest.mark.skipif(not shutil.which("sbomaudit"), reason="sbomaudit is not installed (PyPI)")
@pytest.mark.parametrize("packages", list(Packages))
def test_an_auditor_finds_what_the_ntia_wants(tmp_path: Path, packages: Packages) -> None:
    """Also of a model that came from nowhere known."""
    recipes.write(tmp_path, packages=packages)
    for _ in range(2):
        text = sbom.cyclonedx(materials.read(tmp_path), SYSTEM)
        assert conforms(tmp_path / "sbom.json", text)
        assert not conforms(tmp_path / "sbom.json", text.replace('"version": "', '"no": "'))
        (tmp_path / "aikit.lock").unlink(missing_ok=True)


def conforms(file: Path, text: str) -> bool:
    """Its exit status is about more: the licences that Debian's packages have are not all of SPDX's names."""
    file.write_text(text)
    argv = ["sbomaudit", "--offline", "-i", str(file)]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert "NTIA Summary" in said
    return "[x] NTIA Summary" in said


def test_a_model_has_a_card_and_what_nobody_knows_is_said(tmp_path: Path, tiny_model: Path, nix: None) -> None:
    content = tiny_model.read_bytes()
    recipes.write(tmp_path, content)
    store.add(tiny_model, "llama.gguf", recipes.sha256(content))
    found = next(each for each in bill(tmp_path)["components"] if each["type"] == "machine-learning-model")
    card = found["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == "llama"
    assert card["modelParameters"]["datasets"] == [
        {"type": "dataset", "name": "unknown", "classification": "unknown"}  # lib4sbom reads none without it
    ]
    assert {each["name"] for each in card["properties"]} >= {"gguf:context_length", "gguf:chat_template"}
    assert found["supplier"]["name"] == "TheBloke"


def test_each_cluster_of_the_g7_is_filled_or_unknown(tmp_path: Path, nix: None) -> None:
    recipes.write(tmp_path)
    said = {each["name"] for each in bill(tmp_path)["metadata"]["component"]["properties"]}
    assert said >= {
        f"g7:{name}"
        for name in (
            "metadata",
            "system-level-properties",
            "dataset-properties",
            "infrastructure",
            "security-properties",
            "key-performance-indicators",
        )
    }
