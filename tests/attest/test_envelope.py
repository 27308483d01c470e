"""Statements in files: what is one, and who signed it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.attest import envelope, provenance, sign, verdict
from aikit_nix.base.errors import AikitError
from support import signed

STATEMENT = provenance.statement("https://example.com/x", {"a": 1}, "image", "sha256:" + "1" * 64)


@pytest.mark.parametrize("edwards", [False, True])
def test_a_signed_statement_is_its_signers(tmp_path: Path, edwards: bool) -> None:
    private = signed.key(tmp_path / "pub", edwards=edwards)
    signed.key(tmp_path / "other", edwards=edwards)
    signed.key(tmp_path / "third", edwards=not edwards)
    found = envelope.read(signed.bundle(tmp_path / "s.json", STATEMENT, signed.key(tmp_path / "x"), private))
    assert (found.content, found.predicate, found.predicate_type) == (STATEMENT, {"a": 1}, "https://example.com/x")
    assert found.is_about("sha256:" + "1" * 64)
    keys = [envelope.public_key(tmp_path / name) for name in ("pub", "other", "third")]
    assert [found.is_signed_by(key) for key in keys] == [True, False, False]


def test_a_plain_statement_is_nobodys(tmp_path: Path) -> None:
    signed.key(tmp_path / "pub")
    (tmp_path / "s.json").write_text(json.dumps(STATEMENT))
    assert not envelope.read(tmp_path / "s.json").is_signed_by(envelope.public_key(tmp_path / "pub"))


def wrapped(**changes: Any) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(STATEMENT).encode()).decode()
    return {"payload": payload, "payloadType": signed.TYPE, "signatures": []} | changes


@pytest.mark.parametrize(
    "value",
    [
        {}, [], 7, "x", None,
        STATEMENT | {"_type": "https://in-toto.io/Statement/v0.1"},
        wrapped(payload="!"), wrapped(payload=7), wrapped(payload="e30="), wrapped(payloadType="text/plain"),
        wrapped(signatures=7), wrapped(signatures=[{}]), wrapped(signatures=[{"sig": "!"}]), wrapped(signatures=[{"sig": ""}] * 101),
        {"dsseEnvelope": 7},
    ],
)  # fmt: skip
def test_what_is_no_statement_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "s.json").write_text(json.dumps(value))
    with pytest.raises(AikitError, match="is no in-toto statement"):
        envelope.read(tmp_path / "s.json")


@pytest.mark.parametrize("subject", [None, 7, [], [7], [{}], [{"digest": 7}], [{"digest": {"sha512": "1"}}]])
def test_a_statement_about_nothing_is_about_nothing(tmp_path: Path, subject: object) -> None:
    (tmp_path / "s.json").write_text(json.dumps(STATEMENT | {"subject": subject}))
    assert envelope.read(tmp_path / "s.json").subjects() == []


@pytest.mark.parametrize("kind", [verdict.SUMMARY, verdict.REBUILD])
def test_cosign_and_we_verify_each_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if not shutil.which("cosign"):
        pytest.skip("cosign is not installed")
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["cosign", "generate-key-pair"], check=True, capture_output=True)
    (tmp_path / "image").write_bytes(b"manifest")
    digest = hashlib.sha256(b"manifest").hexdigest()
    statement = provenance.statement(kind, {"a": 1}, "image", f"sha256:{digest}")
    (tmp_path / "s.json").write_bytes(sign.statement(statement, "cosign.key"))
    found = envelope.read(tmp_path / "s.json")
    assert found.content == statement
    assert found.is_signed_by(envelope.public_key(tmp_path / "cosign.pub"))
    argv = ["cosign", "verify-blob-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--type", kind]
    for file, status in (("image", 0), ("s.json", 1)):
        done = subprocess.run([*argv, "--bundle", "s.json", file], capture_output=True, text=True, check=False)
        assert min(done.returncode, 1) == status, done.stderr
