"""A built and pushed image: verified, rebuilt, compared by a second builder, attested, signed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import flakes, image, registry
from support.flakes import Project

COSIGN = shutil.which("cosign")
needs_cosign = pytest.mark.skipif(not COSIGN, reason="cosign is not installed")
SLSA = "https://slsa.dev/provenance/v1"


@pytest.fixture(scope="module")
def project(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        yield flakes.write(tmp_path_factory.mktemp("proof"), tiny_model, patch)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.serve(tmp_path_factory.mktemp("registry")) as found:
        yield found.address


@pytest.fixture(scope="module")
def pushed(project: Project, address: str) -> str:
    done = project.run("push", f"{address}/a/tiny:1")
    assert done.returncode == 0, done.stderr
    return f"{address}/a/tiny:1"


@pytest.mark.parametrize("output", ["oci", "default", "manifest"])
def test_what_nix_built_differs_in_nothing(project: Project, output: str) -> None:
    done = project.run("verify", project.build(output))
    assert done.returncode == 0, done.stderr
    assert "ok: package libllama0" in done.stdout
    assert "ok: BLAKE3 of /models/tiny.gguf" in done.stdout


def test_what_was_pushed_is_what_is_built_again(project: Project, pushed: str) -> None:
    done = project.run("verify", pushed, "--rebuild")
    assert done.returncode == 0, done.stderr
    assert "ok: manifest as built" in done.stdout


def test_one_index_has_the_images_of_all_architectures(project: Project, address: str, tmp_path: Path) -> None:
    text = (project.folder / "aikitfile.yaml").read_text().replace("runtime: avx2\n", "")
    (tmp_path / "aikitfile.yaml").write_text(text)
    shutil.copy(project.folder / "tiny.gguf", tmp_path)
    other = Project(tmp_path)
    for arguments in (["lock"], ["gen", "--packages", "debian"]):
        assert other.run(*arguments).returncode == 0
    done = other.run("push", "--all-systems", f"{address}/a/all:1")
    assert done.returncode == 0, done.stderr
    for system in ("x86_64-linux", "aarch64-linux"):
        done = other.run("verify", "--system", system, f"{address}/a/all:1")
        assert done.returncode == 0, done.stderr
    index = json.loads(fetch(f"{address}/a/all:1", "manifests", "1"))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_another_image_than_the_rebuilt_one_is_named(project: Project, tmp_path: Path) -> None:
    text = project.folder / "aikitfile.yaml"
    (tmp_path / "aikitfile.yaml").write_text(text.read_text().replace("avx2", "avx512"))
    shutil.copy(project.folder / "tiny.gguf", tmp_path)
    other = Project(tmp_path)
    for arguments in (["lock"], ["gen", "--packages", "debian"]):
        assert other.run(*arguments).returncode == 0
    done = project.run("verify", other.build("oci"), "--rebuild")
    assert done.returncode == 1
    assert "layer 1 (/models/tiny.gguf) as built" in done.stdout  # the model is the same
    assert "error: configuration as built: sha256:" in done.stderr
    assert "error: manifest as built: sha256:" in done.stderr


def test_two_builders_compare(project: Project, tmp_path: Path) -> None:
    statement = tmp_path / "statement.json"
    assert project.run("reproduce", "-o", statement).returncode == 0
    done = project.run("reproduce", "--compare", statement)
    assert done.returncode == 0, done.stderr
    content = json.loads(statement.read_text())
    assert content["image"]["manifest"] in done.stdout
    content["inputs"]["aikit/plan.json"] = "0" * 64
    content["image"]["layers"][1]["digest"] = "sha256:0"
    content["nix"] = "nix (Nix) 99"  # may differ
    statement.write_text(json.dumps(content))
    done = project.run("reproduce", "--compare", statement)
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


def digest_of(project: Project) -> str:
    (entry,) = json.loads((project.build("manifest") / "index.json").read_text())["manifests"]
    digest: str = entry["digest"]
    return digest


def test_attestations_refer_to_the_image(project: Project, pushed: str) -> None:
    subject = digest_of(project)
    for _ in range(2):  # twice the same is once
        done = project.run("attest", pushed)
        assert done.returncode == 0, done.stderr
    index = json.loads(fetch(pushed, "manifests", subject.replace(":", "-")))
    kinds = {entry["artifactType"]: entry["digest"] for entry in index["manifests"]}
    assert len(index["manifests"]) == 2
    contents: dict[str, Any] = {}
    for kind, digest in kinds.items():
        manifest = json.loads(fetch(pushed, "manifests", digest))
        assert manifest["subject"]["digest"] == subject
        (layer,) = manifest["layers"]
        contents[kind] = json.loads(fetch(pushed, "blobs", layer["digest"]))
    statement = contents["application/vnd.in-toto+json"]
    assert statement["subject"][0]["digest"] == {"sha256": subject.removeprefix("sha256:")}
    assert statement["predicateType"] == SLSA
    components = contents["application/vnd.cyclonedx+json"]["components"]
    assert {"tiny.gguf", "libllama0"} <= {component["name"] for component in components}


def test_nothing_is_said_about_another_image(project: Project, pushed: str, address: str, tmp_path: Path) -> None:
    shutil.copytree(project.folder, tmp_path / "other", symlinks=True)
    other = Project(tmp_path / "other")
    text = other.folder / "aikitfile.yaml"
    text.write_text(text.read_text().replace("avx2", "avx"))
    assert other.run("gen", "--packages", "debian").returncode == 0
    for arguments in (["attest", pushed], ["sign", pushed, "--key", "cosign.key"]):
        done = other.run(*arguments)
        assert done.returncode == 1
        assert "nothing can be said about it from here" in done.stderr
    done = project.run("attest", f"{address}/a/tiny:none")
    assert done.returncode == 1
    assert "has no none: check the name and the tag" in done.stderr


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("key")
    env = {**os.environ, "COSIGN_PASSWORD": "secret"}
    subprocess.run([COSIGN or "", "generate-key-pair"], cwd=folder, env=env, check=True, capture_output=True)
    return folder / "cosign.key"


def cosign(*arguments: str | Path) -> bytes:
    argv = [COSIGN or "", *arguments]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@needs_cosign
def test_cosign_verifies_image_and_attestations(project: Project, pushed: str, key: Path, tmp_path: Path) -> None:
    done = project.run("sign", pushed, "--key", key, COSIGN_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    assert "sigstore.dev" not in done.stderr  # nor was any service tried in vain
    public: list[str | Path] = ["--key", key.with_suffix(".pub"), "--insecure-ignore-tlog=true"]
    if b"GitVersion:    v2" in cosign("version"):  # which asks for Sigstore's own root otherwise
        (tmp_path / "root.json").write_text(
            '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
        )
        public += ["--new-bundle-format", "--trusted-root", tmp_path / "root.json"]
    assert digest_of(project).encode() in cosign("verify", *public, pushed)
    for kind in ("cyclonedx", "slsaprovenance1"):
        assert b"payload" in cosign("verify-attestation", *public, "--type", kind, pushed)


@needs_cosign
def test_a_wrong_password_is_an_error(project: Project, pushed: str, key: Path) -> None:
    done = project.run("sign", pushed, "--key", key, COSIGN_PASSWORD="wrong")
    assert done.returncode == 1
    assert "error: `cosign` failed" in done.stderr


def test_without_cosign_sign_says_so(project: Project, tmp_path: Path) -> None:
    (tmp_path / "nix").symlink_to(shutil.which("nix") or pytest.fail())
    done = project.run("sign-models", "--key", "cosign.key", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "`cosign` cannot be run: it is not on PATH" in done.stderr
    assert not (project.folder / "model.sig").exists()


@needs_cosign
@pytest.mark.skipif(not importlib.util.find_spec("model_signing"), reason="model-signing is not installed (PyPI)")
def test_the_public_verifier_takes_the_models_signature(project: Project, key: Path, tmp_path: Path) -> None:
    done = project.run("sign-models", "--key", key, "-o", tmp_path / "model.sig", COSIGN_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    image.unpack(project.build("oci"), tmp_path / "root")
    models = tmp_path / "root/models"
    argv = [sys.executable, "-m", "model_signing", "verify", "key", str(models), "--allow_symlinks"]
    argv += ["--signature", str(tmp_path / "model.sig"), "--public_key", str(key.with_suffix(".pub"))]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    (models / "tiny.gguf").chmod(0o644)
    (models / "tiny.gguf").write_bytes(b"other")
    assert subprocess.run(argv, check=False, capture_output=True).returncode != 0
