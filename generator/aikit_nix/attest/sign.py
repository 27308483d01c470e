"""Signatures, made by cosign: of an image and what is said about it, and of its models (OpenSSF Model Signing).

cosign keeps the keys (files, KMS, hardware tokens); it is started, and nothing of it is done here.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aikit_nix.attest import provenance
from aikit_nix.base import files, process
from aikit_nix.flakes.materials import Materials
from aikit_nix.sources import MODELS

# https://github.com/ossf/model-signing-spec
_MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
_SIGNING_CONFIG = "application/vnd.dev.sigstore.signingconfig.v0.2+json"
_TRUSTED_ROOT = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_MODEL_LINK = f"{MODELS}/model.file"  # nix/image.nix's link to the first model, for RamaLama


def image(
    reference: str, key: str, bill: str, slsa: dict[str, Any], *, log: bool = False, insecure: bool | None = None
) -> None:
    """Sign an image (NAME@DIGEST) in its registry, and attest its bill of materials and provenance.

    `log` is whether the public transparency log (Rekor) hears of it. Raises AikitError.
    """
    with _signing(key, log=log) as (folder, common):
        common += ["--allow-http-registry"] if insecure else []
        _cosign("sign", *common, reference)
        for kind, content in (("cyclonedx", bill), ("slsaprovenance1", provenance.encode(slsa))):
            predicate = folder / f"{kind}.json"
            predicate.write_text(content, encoding="utf-8")
            _cosign("attest", *common, "--type", kind, "--predicate", str(predicate), reference)


def models(materials: Materials, key: str, output: Path, *, log: bool = False) -> None:
    """Write the signature of the image's folder /models, as `model_signing verify` takes it. Raises AikitError."""
    files.write_atomic(output, statement(model_statement(materials), key, log=log))


def statement(content: dict[str, Any], key: str, *, log: bool = False) -> bytes:
    """An in-toto statement, signed: a bundle of sigstore, as cosign and `model_signing` take it. Raises AikitError."""
    with _signing(key, log=log) as (folder, common):
        unsigned, bundle, public = folder / "statement", folder / "bundle", folder / "public"
        unsigned.write_text(json.dumps(content))
        _cosign("attest-blob", *common, "--statement", str(unsigned), "--bundle", str(bundle))
        _cosign("public-key", "--key", key, "--outfile", str(public))
        signature = json.loads(bundle.read_bytes())
        # cosign hints at the key by the hash of its DER in base64, the verifier wants that of its PEM in hex; a hint is
        # not signed.
        signature["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(public.read_bytes()).hexdigest()
        return json.dumps(signature).encode() + b"\n"


def model_statement(materials: Materials) -> dict[str, Any]:
    """What is signed of the models: the SHA-256 of every file below /models, and one of them all."""
    resources = sorted(_resources(materials))
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in resources)).hexdigest()
    return provenance.statement(
        _MODEL_SIGNATURE,
        {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": True,
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in resources],
        },
        posixpath.basename(MODELS),
        f"sha256:{root}",
    )


def _resources(materials: Materials) -> Iterator[tuple[str, str]]:
    for model in materials.models:
        yield posixpath.relpath(model.path, MODELS), model.file.sha256
    if materials.models and _MODEL_LINK not in (model.path for model in materials.models):
        yield posixpath.relpath(_MODEL_LINK, MODELS), materials.models[0].file.sha256
    for text in materials.plan.files:
        if text.path.startswith(f"{MODELS}/"):
            yield posixpath.relpath(text.path, MODELS), hashlib.sha256(text.text.encode()).hexdigest()


@contextmanager
def _signing(key: str, *, log: bool) -> Iterator[tuple[Path, list[str]]]:
    """A folder to work in, and the options of all that cosign signs.

    Both of cosign 2.6 and 3 take them, and sign in the new bundle format. Without the public log they name no service at
    all, so that signing needs no network: a signing config and a trusted root with nothing in them.
    Source: protobuf-specs, sigstore_trustroot.proto.
    """
    with files.scratch() as folder:
        services = ["--use-signing-config"]
        if not log:
            config, root = folder / "signing-config.json", folder / "trusted-root.json"
            config.write_text(json.dumps({"mediaType": _SIGNING_CONFIG, "rekorTlogConfig": {}, "tsaConfig": {}}))
            root.write_text(json.dumps({"mediaType": _TRUSTED_ROOT}))
            services = ["--signing-config", str(config), "--trusted-root", str(root)]
        yield folder, ["--new-bundle-format", *services, "--yes", "--key", key]


def _cosign(*arguments: str) -> None:
    """Run cosign, which may ask for the key's password. Raises AikitError."""
    argv: Sequence[str] = ["cosign", *arguments]
    with process.start(argv, stdin=None, stdout=subprocess.DEVNULL) as running:
        if status := running.wait():
            raise process.failure(argv, status, "it says why above")
