"""Signatures by cosign: what is signed, and what cosign is told; with cosign and verifiers themselves where they are."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aikit_nix.attest import sign, verdict
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import materials
from support import engine, image, recipes, signed
from support.command import aikit_nix
from support.flakes import Project
from support.image_fixtures import manifest_digest

COSIGN = shutil.which("cosign")
needs_cosign = pytest.mark.skipif(not COSIGN, reason="cosign is not installed")

# Notes what it is told, and writes what it is asked for.
STAND_IN = """#!/bin/sh
echo "$*" >> {folder}/calls
command=$1
while [ $# -gt 0 ]; do
  case $1 in
    --predicate | --statement | --signing-config) cp "$2" {folder}/"$command-$(basename "$2")" ;;
    --bundle) echo '{{"verificationMaterial": {{"publicKey": {{"hint": "of cosign"}}}}, "dsse": 1}}' > "$2" ;;
    --outfile) echo PEM > "$2" ;;
  esac
  shift
done
exit {status}
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> Path:
    """A program called cosign, first on PATH; the file that has its command lines."""
    (folder / "cosign").write_text(STAND_IN.format(folder=folder, status=status))
    (folder / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "calls"


def test_every_file_below_models_is_signed(tmp_path: Path) -> None:
    """A verifier refuses a folder that has one more: the link for RamaLama and the templates are files, too."""
    content = recipes.write(tmp_path)
    plan = json.loads((tmp_path / "aikit/plan.json").read_text())
    recipes.change(tmp_path / "aikit/plan.json", files=[*plan["files"], {"path": "/models/a.tmpl", "text": "ü"}])
    said = sign.model_statement(materials.read(tmp_path))
    resources = {each["name"]: each["digest"] for each in said["predicate"]["resources"]}
    sha256 = recipes.sha256(content)
    assert resources == {"a.tmpl": recipes.sha256("ü".encode()), "llama.gguf": sha256, "model.file": sha256}
    assert list(resources) == sorted(resources)
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in resources.values())).hexdigest()
    assert said["subject"] == [{"name": "models", "digest": {"sha256": whole}}]


@pytest.mark.parametrize("log", [False, True])
def test_the_public_log_hears_of_it_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: bool
) -> None:
    calls = stand_in(tmp_path, monkeypatch)
    recipes.write(tmp_path / "flake")
    sign.image("ghcr.io/me/x@sha256:0", "cosign.key", "bill", {"a": 1}, log=log)
    sign.models(materials.read(tmp_path / "flake"), "cosign.key", tmp_path / "model.sig", log=log)
    told = [line.split() for line in calls.read_text().splitlines() if not line.startswith("public-key")]
    assert [words[0] for words in told] == ["sign", "attest", "attest", "attest-blob"]
    for words in told:
        assert ("--use-signing-config" in words, "--signing-config" in words) == (log, not log)
        assert words[words.index("--key") + 1] == "cosign.key"
        assert "--allow-http-registry" not in words
        if not log:
            services = json.loads((tmp_path / f"{words[0]}-signing-config.json").read_text())
            assert not {name for name, value in services.items() if name != "mediaType" and value}
    assert (tmp_path / "attest-cyclonedx.json").read_text() == "bill"
    assert json.loads((tmp_path / "attest-slsaprovenance1.json").read_text()) == {"a": 1}


def test_what_is_signed_is_utf_8_whatever_the_terminal_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    code = "from aikit_nix.attest import sign; sign.image('a', 'key', '\\xfc', {'a': '\\u6a21'})"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert (tmp_path / "attest-cyclonedx.json").read_text(encoding="utf-8") == "ü"
    assert json.loads((tmp_path / "attest-slsaprovenance1.json").read_bytes()) == {"a": "模"}


def test_the_models_signature_hints_at_the_key_as_its_verifier_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch)
    recipes.write(tmp_path / "flake")
    found = materials.read(tmp_path / "flake")
    sign.models(found, "cosign.key", tmp_path / "model.sig")
    assert json.loads((tmp_path / "attest-blob-statement").read_text()) == sign.model_statement(found)
    signature = json.loads((tmp_path / "model.sig").read_text())
    assert signature["verificationMaterial"]["publicKey"]["hint"] == recipes.sha256(b"PEM\n")
    assert signature["dsse"] == 1


def test_where_cosign_fails_or_is_not_there_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(tmp_path, monkeypatch, status=3)
    recipes.write(tmp_path / "flake")
    found = materials.read(tmp_path / "flake")
    with pytest.raises(AikitError, match="`cosign` failed with status 3: it says why above"):
        sign.models(found, "cosign.key", tmp_path / "model.sig")
    assert len(calls.read_text().splitlines()) == 1
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(AikitError, match="`cosign` cannot be run: it is not on PATH"):
        sign.models(found, "cosign.key", tmp_path / "model.sig")
    assert not (tmp_path / "model.sig").exists()


# --- With cosign itself


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two builders' private keys; the public ones are beside them."""
    folder = tmp_path_factory.mktemp("key")
    env = {**os.environ, "COSIGN_PASSWORD": "secret"}
    for name in ("alice", "ci"):
        argv = [COSIGN or "", "generate-key-pair", "--output-key-prefix", name]
        subprocess.run(argv, cwd=folder, env=env, check=True, capture_output=True)
    return {name: folder / f"{name}.key" for name in ("alice", "ci")}


@pytest.fixture(scope="module")
def key(keys: dict[str, Path]) -> Path:
    return keys["alice"]


def cosign(*arguments: str | Path) -> bytes:
    argv = [COSIGN or "", *arguments]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@needs_cosign
def test_cosign_verifies_image_and_attestations(tiny_project: Project, pushed: str, key: Path, tmp_path: Path) -> None:
    done = tiny_project.run("sign", pushed, "--key", key, COSIGN_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    assert "sigstore.dev" not in done.stderr  # nor was any service tried in vain
    public = [*offline(tmp_path), "--key", key.with_suffix(".pub")]
    assert manifest_digest(tiny_project).encode() in cosign("verify", *public, pushed)
    for kind in ("cyclonedx", "slsaprovenance1"):
        assert b"payload" in cosign("verify-attestation", *public, "--type", kind, pushed)


def offline(folder: Path) -> list[str | Path]:
    """What cosign is told where no log has heard of a signature."""
    if b"GitVersion:    v2" not in cosign("version"):
        return ["--insecure-ignore-tlog=true"]
    # which asks for Sigstore's own root otherwise
    (folder / "root.json").write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    return ["--insecure-ignore-tlog=true", "--new-bundle-format", "--trusted-root", folder / "root.json"]


@pytest.fixture(scope="module")
def evidence(
    tiny_project: Project, pushed: str, keys: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """What two builders signed and pushed beside the image, by who and what."""
    folder, made = tmp_path_factory.mktemp("evidence"), {}
    for name, key in keys.items():
        for kind, command in ((verdict.REBUILD, ["reproduce"]), (verdict.SUMMARY, ["verify", pushed])):
            file = made[name, kind] = folder / f"{name}-{command[0]}.json"
            done = tiny_project.run(*command, "-o", file, "--key", key, COSIGN_PASSWORD="secret")
            assert done.returncode == 0, done.stderr
            done = tiny_project.run("attest", pushed, "--statement", file)
            assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def verified(keys: dict[str, Path], evidence: dict[tuple[str, str], Path], pushed: str, tmp_path: Path) -> list[Path]:
    """The builders' rebuilds, as cosign takes them from the registry and verifies them."""
    found = []
    for name, kind in evidence:
        public = [*offline(tmp_path), "--key", keys[name].with_suffix(".pub")]
        said = cosign("verify-attestation", *public, "--type", kind, pushed)
        if kind == verdict.REBUILD:
            found.append(tmp_path / f"{name}.json")
            found[-1].write_bytes(said.splitlines()[0])
    return found


@needs_cosign
def test_two_builders_with_one_digest_pass_and_a_tampered_one_fails(
    tiny_project: Project,
    pushed: str,
    keys: dict[str, Path],
    evidence: dict[tuple[str, str], Path],
    verified: list[Path],
    tmp_path: Path,
) -> None:
    assert len(verified) == 2
    (tmp_path / "policy.toml").write_text(
        f'[signers]\nalice = "{keys["alice"].with_suffix(".pub")}"\nci = "{keys["ci"].with_suffix(".pub")}"\n'
        '[require]\nrebuilds = 2\nsummaries = 2\nruntimes = ["avx2"]\n'
    )
    (tmp_path / "elsewhere").mkdir()  # where no flake is
    done = aikit_nix("verify", pushed, "--policy", tmp_path / "policy.toml", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    bundle = json.loads(evidence["ci", verdict.REBUILD].read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    digest = manifest_digest(tiny_project).removeprefix("sha256:").encode()
    files = [file for key, file in evidence.items() if key != ("ci", verdict.REBUILD)] + [tmp_path / "tampered.json"]
    for tampered in (payload.replace(digest, b"6" * 64), payload.replace(b"avx2", b"avx9")):
        assert tampered != payload
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(tampered).decode()
        (tmp_path / "tampered.json").write_text(json.dumps(bundle))
        given = [word for file in files for word in ("--evidence", file)]
        done = tiny_project.run("verify", tiny_project.build("default"), "--policy", tmp_path / "policy.toml", *given)
        assert done.returncode == 1
        assert "1 of 2 rebuilds" in done.stderr


@needs_cosign
@pytest.mark.skipif(not shutil.which("conftest"), reason="conftest is not installed")
def test_a_policy_engine_takes_what_cosign_verified(verified: list[Path], tmp_path: Path) -> None:
    engine.accepts(tmp_path, verified, licenses="{null}")  # the model's file was nobody's
    engine.accepts(tmp_path, verified, but="the licence of /models/tiny.gguf is null")


@needs_cosign
@pytest.mark.skipif(not shutil.which("kyverno"), reason="kyverno's command line is not installed")
@pytest.mark.usefixtures("evidence")
def test_a_clusters_policy_takes_them(
    tiny_project: Project, keys: dict[str, Path], pushed: str, tmp_path: Path
) -> None:
    public = [keys[name].with_suffix(".pub") for name in ("alice", "ci")]
    image = f"{pushed.rpartition(':')[0]}@{manifest_digest(tiny_project)}"
    done = engine.kyverno(tmp_path, image, public)
    assert "pass: 1, fail: 0" in done.stdout, done.stdout + done.stderr
    signed.key(tmp_path / "other.pub")
    done = engine.kyverno(tmp_path, image, [public[0], tmp_path / "other.pub"])
    assert "pass: 0, fail: 1" in done.stdout, done.stdout + done.stderr
    assert "two builders have to have built this very image" in done.stdout


@needs_cosign
def test_a_wrong_password_is_an_error(tiny_project: Project, pushed: str, key: Path) -> None:
    done = tiny_project.run("sign", pushed, "--key", key, COSIGN_PASSWORD="wrong")
    assert done.returncode == 1
    assert "error: `cosign` failed" in done.stderr


@needs_cosign
@pytest.mark.skipif(not importlib.util.find_spec("model_signing"), reason="model-signing is not installed (PyPI)")
def test_the_public_verifier_takes_the_models_signature(tiny_project: Project, key: Path, tmp_path: Path) -> None:
    done = tiny_project.run("sign", "--key", key, "--models", tmp_path / "model.sig", COSIGN_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    image.unpack(tiny_project.build("oci"), tmp_path / "root")
    models = tmp_path / "root/models"
    argv = [sys.executable, "-m", "model_signing", "verify", "key", str(models), "--allow_symlinks"]
    argv += ["--signature", str(tmp_path / "model.sig"), "--public_key", str(key.with_suffix(".pub"))]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    (models / "tiny.gguf").chmod(0o644)
    (models / "tiny.gguf").write_bytes(b"other")
    assert subprocess.run(argv, check=False, capture_output=True).returncode != 0
