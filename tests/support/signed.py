"""Keys and signed statements as cosign makes them, without cosign: DSSE, in a bundle of sigstore."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TYPE = "application/vnd.in-toto+json"
Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def key(public: Path, *, edwards: bool = False) -> Private:
    """A new private key; its public half is written to a file."""
    private: Private = ed25519.Ed25519PrivateKey.generate() if edwards else ec.generate_private_key(ec.SECP256R1())
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private


def bundle(file: Path, statement: dict[str, Any], *keys: Private) -> Path:
    """A statement, signed by some keys, in a file."""
    payload = json.dumps(statement).encode()
    signed = f"DSSEv1 {len(TYPE)} {TYPE} {len(payload)} ".encode() + payload
    signatures = [
        each.sign(signed) if isinstance(each, ed25519.Ed25519PrivateKey) else each.sign(signed, ec.ECDSA(SHA256()))
        for each in keys
    ]
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": TYPE,
        "signatures": [{"sig": base64.b64encode(each).decode()} for each in signatures],
    }
    file.write_text(
        json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": envelope})
    )
    return file
