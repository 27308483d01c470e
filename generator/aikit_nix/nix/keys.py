"""Nix' keys (`nix key generate-secret`), for what Nix does not sign itself: Ed25519, written `NAME:BASE64`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from aikit_nix.base.errors import error

_SEED_BYTES = 32  # a secret key is this, and then the public one: libsodium's crypto_sign


def sign(secret: str, data: bytes) -> str:
    """The signature of some bytes, `NAME:BASE64`, as Nix writes its own. Raises AikitError where `secret` is no key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        name, key = _parts(secret)
        private = Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES])
    except ValueError:
        raise error("the key is no secret key of Nix: make one with `nix key generate-secret`") from None
    return f"{name}:{base64.b64encode(private.sign(data)).decode()}"


def signer(data: bytes, signatures: Iterable[str], public_keys: Iterable[str]) -> str | None:
    """The name of a public key (`NAME:BASE64`) that made one of the signatures of some bytes; None where none did."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    known = list(_readable(public_keys))
    for name, signature in _readable(signatures):
        for own, key in known:
            if own == name and len(key) == _SEED_BYTES:
                try:
                    Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
                except InvalidSignature:
                    continue
                return name
    return None


def _readable(texts: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for text in texts:
        try:
            yield _parts(text)
        except ValueError:
            continue


def _parts(text: str) -> tuple[str, bytes]:
    name, colon, key = text.strip().partition(":")
    if not name or not colon:
        raise ValueError("no name")
    return name, base64.b64decode(key, validate=True)
