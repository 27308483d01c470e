"""in-toto statements in files, plain or signed: DSSE envelopes, alone or in a bundle of sigstore, as cosign writes them.

A signature by a key is checked here, with that key and nothing else, so no network is asked. One by an identity (keyless)
is for cosign. Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from aikit_nix.attest.provenance import MEDIA_TYPE, STATEMENT_TYPE
from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.image.blobs import Opened

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Statement:
    """An in-toto statement, where it was read, and what signatures it came with."""

    where: str
    content: Mapping[str, Any]
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def predicate_type(self) -> str:
        """What is said, by its type's URI."""
        return str(self.content.get("predicateType"))

    @property
    def predicate(self) -> Mapping[str, Any]:
        """What is said."""
        found = self.content.get("predicate")
        return found if isinstance(found, dict) else {}

    def is_about(self, digest: str) -> bool:
        """Whether it is about something of a digest, `sha256:…`."""
        return digest in self.subjects()

    def subjects(self) -> list[str]:
        """The digests that it is about."""
        listed = self.content.get("subject")
        digests = [each.get("digest") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return [f"sha256:{each['sha256']}" for each in digests if isinstance(each, dict) and "sha256" in each]

    def is_signed_by(self, key: PublicKeyTypes) -> bool:
        """Whether one of its signatures is by a key: ECDSA with SHA-256, or Ed25519."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        signed = b"DSSEv1 %d %s %d %s" % (len(MEDIA_TYPE), MEDIA_TYPE.encode(), len(self.payload), self.payload)
        for signature in self.signatures:
            try:
                match key:
                    case EllipticCurvePublicKey():
                        key.verify(signature, signed, ECDSA(SHA256()))
                    case Ed25519PublicKey():
                        key.verify(signature, signed)
                    case _:
                        return False
            except InvalidSignature:
                continue
            return True
        return False


def read(path: Path) -> Statement:
    """The statement in a file. Raises AikitError where it holds none."""
    return _parse(files.read_bounded(path, MAX_BYTES), str(path))


def beside(image: Opened) -> Iterator[Statement]:
    """The signed statements that a registry has of an image; whoever may push there may have put anything among them.

    Raises AikitError where the registry cannot be asked.
    """
    for data in image.said(BUNDLE, MAX_BYTES):
        with suppress(AikitError):
            yield _parse(data, image.where)


class _Signature(Struct):
    sig: bytes


class _Envelope(Struct, rename="camel"):
    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[_Signature, ...], Meta(max_length=100)]


def _parse(data: bytes, where: str) -> Statement:
    with typed_json.refusing(f"{where} is no in-toto statement, plain or signed", code="statement"):
        value = typed_json.decode(data, dict[str, Any])
        value = typed_json.convert(value.get("dsseEnvelope", value), dict[str, Any])
        payload, signatures = data, tuple[bytes, ...]()
        if "payload" in value:
            envelope = typed_json.convert(value, _Envelope)
            payload, signatures = envelope.payload, tuple(each.sig for each in envelope.signatures)
        content = typed_json.decode(payload, dict[str, Any])
        if content.get("_type") != STATEMENT_TYPE:
            raise ValueError(f"it is {content.get('_type')!r}")
        return Statement(where, content, payload, signatures)


def public_key(path: Path) -> PublicKeyTypes:
    """The public key in a PEM file, as `cosign public-key` writes it. Raises AikitError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(files.read_bounded(path, 1 << 16))
    except (ValueError, UnsupportedAlgorithm):
        raise error(f"{path} is no public key (PEM, as `cosign public-key` writes it)", code="key") from None
