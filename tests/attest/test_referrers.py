"""A built and pushed image: verified, rebuilt, compared by a second builder, attested."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.attest import ingestion, provenance
from aikit_nix.attest import verdict as verdicts
from support.flakes import Project
from support.image_fixtures import manifest_digest

SLSA = "https://slsa.dev/provenance/v1"


@pytest.mark.parametrize("output", ["default", "archive", "manifest"])
def test_what_nix_built_differs_in_nothing(tiny_project: Project, output: str) -> None:
    done = tiny_project.run("verify", tiny_project.build(output))
    assert done.returncode == 0, done.stderr
    assert f"ok: manifest: {manifest_digest(tiny_project)}" in done.stdout
    assert "ok: sha256 of /models/tiny.gguf" in done.stdout


def test_what_was_pushed_is_what_is_built_again(tiny_project: Project, pushed: str) -> None:
    done = tiny_project.run("verify", pushed, "--rebuild")
    assert done.returncode == 0, done.stderr
    assert "derivations built again" in done.stdout
    assert f"ok: manifest: {manifest_digest(tiny_project)}" in done.stdout


def test_one_index_has_the_images_of_all_architectures(
    tiny_project: Project, shared_address: str, tmp_path: Path
) -> None:
    text = (tiny_project.folder / "aikitfile.yaml").read_text().replace("runtime: avx2\n", "")
    (tmp_path / "aikitfile.yaml").write_text(text)
    shutil.copy(tiny_project.folder / "tiny.gguf", tmp_path)
    other = Project(tmp_path)
    for arguments in (["lock"], ["gen", "--packages", "debian"]):
        assert other.run(*arguments).returncode == 0
    done = other.run("push", "--all-systems", f"{shared_address}/a/all:1")
    assert done.returncode == 0, done.stderr
    for system in ("x86_64-linux", "aarch64-linux"):
        done = other.run("verify", "--system", system, f"{shared_address}/a/all:1")
        assert done.returncode == 0, done.stderr
    index = json.loads(fetch(f"{shared_address}/a/all:1", "manifests", "1"))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_another_image_than_the_rebuilt_one_is_named(tiny_project: Project, tmp_path: Path) -> None:
    text = tiny_project.folder / "aikitfile.yaml"
    (tmp_path / "aikitfile.yaml").write_text(text.read_text().replace("avx2", "avx512"))
    shutil.copy(tiny_project.folder / "tiny.gguf", tmp_path)
    other = Project(tmp_path)
    for arguments in (["lock"], ["gen", "--packages", "debian"]):
        assert other.run(*arguments).returncode == 0
    done = tiny_project.run("verify", other.build("oci"), "--rebuild")
    assert done.returncode == 1
    assert "ok: layer 1 of " in done.stdout  # the model is the same
    assert "error: label aikit-nix.runtime: avx512, and the flake gives avx2" in done.stderr
    assert "error: configuration: sha256:" in done.stderr
    assert "error: manifest: sha256:" in done.stderr


def test_two_builders_compare(tiny_project: Project, tmp_path: Path) -> None:
    statement = tmp_path / "statement.json"
    assert tiny_project.run("reproduce", "-o", statement).returncode == 0
    done = tiny_project.run("reproduce", "--compare", statement)
    assert done.returncode == 0, done.stderr
    written = json.loads(statement.read_text())
    content = written["predicate"]
    assert content["image"]["manifest"] in done.stdout
    content["inputs"]["aikit/plan.json"] = "0" * 64
    content["image"]["layers"][1]["digest"] = "sha256:0"
    content["nix"] = "nix (Nix) 99"  # may differ
    statement.write_text(json.dumps(written))
    done = tiny_project.run("reproduce", "--compare", statement)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert "the input aikit/plan.json: " in first
    assert "the layer 2: sha256:" in second


def fetch(reference: str, kind: str, name: str) -> bytes:
    host, _, repository = reference.rpartition(":")[0].partition("/")
    request = urllib.request.Request(f"http://{host}/v2/{repository}/{kind}/{name}")
    request.add_header("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json")
    with urllib.request.urlopen(request) as response:
        content: bytes = response.read()
        return content


def test_attestations_refer_to_the_image(tiny_project: Project, pushed: str, tmp_path: Path) -> None:
    subject = manifest_digest(tiny_project)
    verdict = tmp_path / "vsa.json"
    done = tiny_project.run("verify", pushed, "-o", verdict)
    assert done.returncode == 0, done.stderr
    for _ in range(2):  # twice the same is once
        done = tiny_project.run("attest", pushed, "--statement", verdict)
        assert done.returncode == 0, done.stderr
    index = json.loads(fetch(pushed, "manifests", subject.replace(":", "-")))
    said = [(entry["artifactType"], entry["digest"]) for entry in index["manifests"]]
    ours = [each for each in said if each[0] in ("application/vnd.cyclonedx+json", "application/vnd.in-toto+json")]
    contents: dict[str, Any] = {}
    for kind, digest in ours:
        manifest = json.loads(fetch(pushed, "manifests", digest))
        assert manifest["subject"]["digest"] == subject
        (layer,) = manifest["layers"]
        content = json.loads(fetch(pushed, "blobs", layer["digest"]))
        contents[content.get("predicateType", kind)] = content
    # beside cosign's, where another test signed the image
    assert contents.keys() == {"application/vnd.cyclonedx+json", SLSA, verdicts.SUMMARY, ingestion.PREDICATE_TYPE}
    for kind in (SLSA, verdicts.SUMMARY):
        assert contents[kind]["subject"][0]["digest"] == {"sha256": subject.removeprefix("sha256:")}
    assert contents[verdicts.SUMMARY]["predicate"]["verificationResult"] == "PASSED"
    assert contents[ingestion.PREDICATE_TYPE]["subject"][0]["name"] == "/models/tiny.gguf"
    components = contents["application/vnd.cyclonedx+json"]["components"]
    assert {"tiny.gguf", "libllama0"} <= {component["name"] for component in components}


def test_nothing_is_said_about_another_image(
    tiny_project: Project, pushed: str, shared_address: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_project.folder, tmp_path / "other", symlinks=True)
    other = Project(tmp_path / "other")
    text = other.folder / "aikitfile.yaml"
    text.write_text(text.read_text().replace("avx2", "avx"))
    assert other.run("gen", "--packages", "debian").returncode == 0
    for arguments in (["attest", pushed], ["sign", pushed, "--key", "cosign.key"]):
        done = other.run(*arguments)
        assert done.returncode == 1
        assert "nothing can be said about it from here" in done.stderr
    (tmp_path / "other.json").write_text(
        json.dumps(provenance.statement(verdicts.SUMMARY, {}, "image", f"sha256:{'6' * 64}"))
    )
    done = tiny_project.run("attest", pushed, "--statement", tmp_path / "other.json")
    assert done.returncode == 1
    assert "other.json is about sha256:666" in done.stderr
    done = tiny_project.run("attest", f"{shared_address}/a/tiny:none")
    assert done.returncode == 1
    assert "has no none: check the name and the tag" in done.stderr
