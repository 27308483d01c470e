"""Signatures by keys of Nix: what Nix itself says of them, and what is no signature."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.nix import command, keys
from support import bundles

pytestmark = pytest.mark.usefixtures("nix")


def test_nix_signs_alike(tmp_path: Path) -> None:
    """Nix signs `1;PATH;NARHASH;NARSIZE;REFERENCES` of a store path (its manual, "Store Path"): Ed25519, so the same bytes."""
    (tmp_path / "file").write_bytes(data := os.urandom(100))
    path = subprocess.run(["nix-store", "--add", tmp_path / "file"], capture_output=True, text=True, check=True).stdout
    secret, _ = bundles.key(tmp_path)
    command.run("store", "sign", "--key-file", secret, path.strip())
    said = json.loads(command.run("path-info", "--json", path.strip()))
    info = said[0] if isinstance(said, list) else said[path.strip()]
    ((nar_hash, size),) = command.sizes([path.strip()])
    assert size == len(bundles.nar_of(data))
    fingerprint = f"1;{path.strip()};{nar_hash};{size};".encode()
    assert keys.sign(secret.read_text(), fingerprint) in info["signatures"]


def test_a_signature_is_of_one_text_and_one_key(tmp_path: Path) -> None:
    secret, public = bundles.key(tmp_path)
    signature = keys.sign(secret.read_text(), b"text")
    (tmp_path / "other").mkdir()
    _, other = bundles.key(tmp_path / "other")
    assert keys.signer(b"text", ["", "x", "ci-1:!", signature], ["", "y:=", other, public]) == "ci-1"
    assert keys.signer(b"text", [signature], [other]) is None
    assert keys.signer(b"texts", [signature], [public]) is None
    assert keys.signer(b"text", [f"ci-2{signature[4:]}"], [public]) is None
    assert keys.signer(b"text", [], [public]) is None


@pytest.mark.parametrize(
    "secret", ["", "name", "name:", ":AAAA", "name:!", f"name:{base64.b64encode(b'short').decode()}"]
)
def test_what_is_no_key_is_said(secret: str) -> None:
    with pytest.raises(AikitError, match="no secret key of Nix"):
        keys.sign(secret, b"text")
