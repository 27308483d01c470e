"""`verify --policy`: who has to have said what of an image before it runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from aikit_nix.attest import envelope, policy, provenance, verdict
from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.image import layout
from aikit_nix.registry import artifact
from aikit_nix.registry.artifact import Referrer
from aikit_nix.registry.client import Repository
from support import docs, engine, layouts, pushes, signed
from support.command import aikit_nix
from support.fake_registry import FakeRegistry

MODELS = [{"path": "/models/m.gguf", "sha256": "1" * 64, "license": "mit"}]
ABOUT = {"runtime": "avx2", "models": MODELS}
POLICY = '[signers]\na = "a.pub"\nb = "b.pub"\n[require]\n'


@dataclass
class Release:
    """An image on the disk, two builders' keys and one of nobody, and what they signed."""

    folder: Path
    keys: Mapping[str, signed.Private]
    digest: str
    evidence: list[Path] = field(default_factory=list)

    def rebuilt(self, by: str, digest: str | None = None, about: Mapping[str, Any] = ABOUT) -> None:
        self.say(by, verdict.REBUILD, dict(about), digest)

    def say(self, by: str, kind: str, predicate: Mapping[str, Any], digest: str | None = None) -> None:
        statement = provenance.statement(kind, predicate, "image", digest or self.digest)
        file = self.folder / f"{len(self.evidence)}.json"
        self.evidence.append(signed.bundle(file, statement, self.keys[by]))

    def verify(self, text: str, *more: str | Path, image: str = "image/layout") -> CompletedProcess[str]:
        (self.folder / "policy.toml").write_text(text)
        given = [word for file in self.evidence for word in ("--evidence", file)]
        done = aikit_nix("verify", image, "--policy", "policy.toml", *given, *more, cwd=self.folder)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def release(tmp_path: Path) -> Release:
    keys = {name: signed.key(tmp_path / f"{name}.pub", edwards=name == "b") for name in "abx"}
    image = layout.read_layout(layouts.write(tmp_path / "image", {"/models/m.gguf": b"weights"}, {"x": b"1"}))
    assert image.digest
    return Release(tmp_path, keys, image.digest)


def test_two_builders_with_one_digest_pass(release: Release) -> None:
    release.rebuilt("a")
    release.rebuilt("b")
    done = release.verify(POLICY + 'rebuilds = 2\nlicenses = ["mit"]\nruntimes = ["avx2", "cuda"]\n')
    assert done.returncode == 0, done.stderr
    assert "ok: policy sha256:" in done.stdout


def test_the_docs_policy_is_one(release: Release) -> None:
    (text,) = docs.blocks("proof.md", "A verdict that one can enforce", "toml")
    for name, own in (("alice", "a"), ("ci", "b")):
        (release.folder / f"{name}.pub").write_bytes((release.folder / f"{own}.pub").read_bytes())
    release.rebuilt("a")
    assert "1 of 2 rebuilds" in release.verify(text).stderr
    release.rebuilt("b")
    assert release.verify(text).returncode == 0


def test_where_one_is_tampered_they_fail(release: Release) -> None:
    release.rebuilt("a")
    release.rebuilt("b", "sha256:" + "6" * 64)
    done = release.verify(POLICY + "rebuilds = 2\n")
    assert done.returncode == 1
    assert (
        f"1 of 2 rebuilds that the policy wants are about {release.digest}; others are about sha256:666" in done.stderr
    )


def test_the_policies_for_others_are_about_our_statements() -> None:
    (rego,), (kyverno,) = (docs.blocks("proof.md", "With other policy engines", each) for each in ("rego", "yaml"))
    assert f'each.predicateType != "{verdict.REBUILD}"' in rego
    said = yaml.safe_load(kyverno)["spec"]
    types = {each["name"]: each["intoto"]["type"] for each in said["attestations"]}
    assert types == {"rebuild": verdict.REBUILD, "summary": verdict.SUMMARY}
    asked = " ".join(each["expression"] for each in said["validations"])
    for kind, names in (("attestations", types), ("attestors", [each["name"] for each in said["attestors"]])):
        assert set(re.findall(rf"\b{kind}\.(\w+)", asked)) == set(names)


@pytest.mark.skipif(not shutil.which("conftest"), reason="conftest is not installed")
@pytest.mark.parametrize(
    ("digest", "about", "message"),
    [
        (None, ABOUT, ""),
        ("sha256:" + "6" * 64, ABOUT, "the builders have other digests"),
        (None, ABOUT | {"runtime": "cuda"}, "the runtime is cuda"),
        (None, {"models": MODELS}, "the runtime is null"),
        (None, ABOUT | {"models": [{"path": "/models/m.gguf"}]}, "the licence of /models/m.gguf is null"),
    ],
)
def test_a_policy_engine_judges_the_same_statements(
    release: Release, digest: str | None, about: dict[str, Any], message: str
) -> None:
    release.rebuilt("a")
    release.rebuilt("b", digest, about)
    for file in release.evidence:  # as `cosign verify-attestation` gives them
        file.write_text(json.dumps(json.loads(file.read_text())["dsseEnvelope"]))
    engine.accepts(release.folder, release.evidence, but=message)
    engine.accepts(release.folder, release.evidence[:1], but="two rebuilds are wanted")


@pytest.mark.parametrize(
    "attack", ["one twice", "nobody's key", "another kind", "unsigned", "changed", "one key, two names"]
)
def test_nobody_counts_twice_or_unsigned(release: Release, attack: str) -> None:
    release.rebuilt("a")
    match attack:
        case "one twice":
            release.rebuilt("a")
        case "nobody's key":
            release.rebuilt("x")
        case "another kind":
            release.say("b", provenance.PREDICATE_TYPE, ABOUT)
        case "unsigned":
            statement = provenance.statement(verdict.REBUILD, ABOUT, "image", release.digest)
            (release.folder / "plain.json").write_text(json.dumps(statement))
            release.evidence.append(release.folder / "plain.json")
        case "changed":
            release.rebuilt("b", "sha256:" + "6" * 64)
            bundle = json.loads(release.evidence[1].read_text())
            bundle["dsseEnvelope"]["payload"] = json.loads(release.evidence[0].read_text())["dsseEnvelope"]["payload"]
            release.evidence[1].write_text(json.dumps(bundle))
        case "one key, two names":
            (release.folder / "b.pub").write_bytes((release.folder / "a.pub").read_bytes())
    done = release.verify(POLICY + "rebuilds = 2\n")
    assert done.returncode == 1
    assert "1 of 2 rebuilds" in done.stderr or "names 1 keys that could sign one" in done.stderr


@pytest.mark.parametrize("knows", [True, False], ids=["referrers", "tag"])
def test_statements_beside_the_image_count(release: Release, fake: FakeRegistry, knows: bool) -> None:
    """Whatever else somebody put there, nothing of it does."""
    fake.referrers = knows
    release.rebuilt("a")
    release.rebuilt("x")
    release.rebuilt("b", "sha256:" + "6" * 64)
    release.rebuilt("b")
    contents = [b"{", b"[]", *(file.read_bytes() for file in release.evidence)]
    release.evidence.clear()
    pushes.send(release.folder / "image/layout", f"{fake.address}/a/x:1")
    with Client() as client:
        repository = Repository(client, fake.address, "a/x", actions="pull,push")
        said = [Referrer(envelope.BUNDLE, each, {}) for each in contents]
        artifact.attach(repository, repository.manifest("1"), [*said[:-1], Referrer("text/x", contents[-1], {})])
        done = release.verify(POLICY + "rebuilds = 2\n", image=f"{fake.address}/a/x:1")
        assert "1 of 2 rebuilds" in done.stderr
        artifact.attach(repository, repository.manifest("1"), said[-1:])
    done = release.verify(POLICY + "rebuilds = 2\n", image=f"{fake.address}/a/x:1")
    assert done.returncode == 0, done.stderr


def test_an_image_whose_bytes_are_others_fails_whoever_signed(release: Release) -> None:
    release.rebuilt("a")
    image = layout.read_layout(release.folder / "image/layout")
    blob = layout.blob_path(release.folder / "image/layout", image.layers[0].digest)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert release.verify(POLICY + "rebuilds = 1\n").returncode == 1


@pytest.mark.parametrize(
    ("about", "text", "message"),
    [
        (ABOUT, 'licenses = ["apache-2.0"]', "the licence of a model is mit, and the policy allows apache-2.0"),
        (ABOUT | {"models": [{"license": None}]}, 'licenses = ["mit"]', "the licence of a model is not known"),
        ({"runtime": "avx2"}, 'licenses = ["mit"]', "the licence of a model is not known"),
        (ABOUT, 'runtimes = ["cuda"]', "the runtime is avx2, and the policy allows cuda"),
        ({}, 'runtimes = ["cuda"]', "the runtime is None"),
    ],
)
def test_licences_and_runtimes_are_what_the_builders_say(
    release: Release, about: dict[str, Any], text: str, message: str
) -> None:
    release.rebuilt("a", about=about)
    done = release.verify(f"{POLICY}rebuilds = 1\n{text}\n")
    assert done.returncode == 1
    assert message in done.stderr


def test_a_verdict_of_others_counts_where_it_was_passed(release: Release) -> None:
    release.rebuilt("a")
    release.say("b", verdict.SUMMARY, {"verificationResult": "FAILED"})
    text = POLICY + "rebuilds = 1\nsummaries = 1\n"
    assert "0 of 1 verification summaries" in release.verify(text).stderr
    release.say("b", verdict.SUMMARY, {"verificationResult": "PASSED"})
    assert release.verify(text).returncode == 0


def test_a_policy_without_builders_still_wants_a_flake(release: Release) -> None:
    release.say("b", verdict.SUMMARY, {"verificationResult": "PASSED"})
    done = release.verify(POLICY + "summaries = 1\n")
    assert done.returncode == 1
    assert "not compared with a plan" in done.stderr


def test_an_archive_without_its_flake_is_nothing_that_somebody_signed(release: Release) -> None:
    release.rebuilt("a")
    layouts.archive(release.folder / "image/layout", release.folder / "image.tar")
    done = release.verify(POLICY + "rebuilds = 1\n", "-o", "vsa.json", image="image.tar")
    assert done.returncode == 1
    assert "a docker-archive has none: name the flake, or give an OCI layout" in done.stderr
    (subject,) = json.loads((release.folder / "vsa.json").read_text())["subject"]
    config = layout.read_layout(release.folder / "image/layout").config_digest
    assert subject["digest"] == {"sha256": config.removeprefix("sha256:")}


def test_the_verdict_is_written_and_counts_for_the_next(release: Release) -> None:
    release.rebuilt("a")
    assert release.verify(POLICY + "rebuilds = 1\n", "-o", "vsa.json").returncode == 0
    found = json.loads((release.folder / "vsa.json").read_text())
    assert found["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert found["subject"][0]["digest"]["sha256"] == release.digest.removeprefix("sha256:")
    assert found["predicate"]["verificationResult"] == "PASSED"
    assert found["predicate"]["verifiedLevels"] == ["AIKIT_NIX_POLICY"]
    assert release.verify(POLICY + "rebuilds = 2\n", "-o", "vsa.json").returncode == 1
    found = json.loads((release.folder / "vsa.json").read_text())
    assert (found["predicate"]["verificationResult"], found["predicate"]["verifiedLevels"]) == ("FAILED", ["FAILED"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it requires nothing"),
        ("[require]\n", "it requires nothing"),
        ("[", "is no policy"),
        ("a = " + "[" * 100_000, "it nests too deep"),
        ("\xff", "is no policy"),
        ("[require]\nrebuild = 1\n", "'rebuild' is not known"),
        ("[requires]\nrebuilds = 1\n", "'requires' is not known"),
        ("[require]\nrebuilds = 0\n", "makes no sense"),
        ("[require]\nrebuilds = true\n", "makes no sense"),
        ("[require]\nlicenses = []\n", "makes no sense"),
        ('[require]\nlicenses = "mit"\n', "makes no sense"),
        ("require = 1\n", "is no policy"),
        ("[require]\nrebuilds = 1\n", "names 0 keys"),
        ('[signers]\na = "policy.toml"\n[require]\nrebuilds = 1\n', "is no public key"),
        ('[signers]\na = "absent"\n[require]\nrebuilds = 1\n', "no such file"),
        ('signers = ["a"]\n[require]\nrebuilds = 1\n', "is no policy"),
    ],
)
def test_what_is_no_policy_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "policy.toml").write_text(text, encoding="latin-1")
    with pytest.raises(AikitError, match=message):
        policy.read(tmp_path / "policy.toml")
