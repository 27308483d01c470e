"""Signatures, made by cosign: of an image and what is said about it, and of its models (OpenSSF Model Signing).

cosign keeps the keys (files, KMS, hardware tokens); it is started, and nothing of it is done here.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aikit_nix import files, process
from aikit_nix.image import provenance
from aikit_nix.recipe import Recipe
from aikit_nix.sources import MODELS

# https://github.com/ossf/model-signing-spec
_MODEL_SIGNATURE = "https://model_signing/signature/v1.0"
_MODEL_LINK = f"{MODELS}/model.file"  # nix/image.nix's link to the first model, for RamaLama


def image(
    reference: str, key: str, bill: str, slsa: dict[str, Any], *, log: bool = False, insecure: bool = False
) -> None:
    """Sign an image (NAME@DIGEST) in its registry, and attest its bill of materials and provenance.

    `log` is whether the public transparency log (Rekor) hears of it. Raises AikitError.
    """
    common = [f"--tlog-upload={str(log).lower()}", "--yes", "--key", key]
    common += ["--allow-http-registry"] if insecure else []
    _cosign("sign", *common, reference)
    with tempfile.TemporaryDirectory(prefix="aikit-nix-") as folder:
        for kind, content in (("cyclonedx", bill), ("slsaprovenance1", provenance.encode(slsa))):
            predicate = Path(folder, f"{kind}.json")
            predicate.write_text(content)
            _cosign("attest", *common, "--type", kind, "--predicate", str(predicate), reference)


def models(recipe: Recipe, key: str, output: Path, *, log: bool = False) -> None:
    """Write the signature of the image's folder /models, as `model_signing verify` takes it. Raises AikitError."""
    with tempfile.TemporaryDirectory(prefix="aikit-nix-") as folder:
        statement, bundle, public = Path(folder, "statement"), Path(folder, "bundle"), Path(folder, "public")
        statement.write_text(json.dumps(model_statement(recipe)))
        options = [f"--tlog-upload={str(log).lower()}", "--yes", "--key", key]
        _cosign("attest-blob", *options, "--statement", str(statement), "--new-bundle-format", "--bundle", str(bundle))
        _cosign("public-key", "--key", key, "--outfile", str(public))
        signature = json.loads(bundle.read_bytes())
        # cosign hints at the key by the hash of its DER in base64, the verifier wants that of its PEM in hex; a hint is
        # not signed.
        signature["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(public.read_bytes()).hexdigest()
        files.write_atomic(output, json.dumps(signature).encode() + b"\n")


def model_statement(recipe: Recipe) -> dict[str, Any]:
    """What is signed of the models: the SHA-256 of every file below /models, and one of them all."""
    resources = sorted(_resources(recipe))
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


def _resources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for model in recipe.models:
        yield posixpath.relpath(model.path, MODELS), model.file.sha256
    if recipe.models and _MODEL_LINK not in (model.path for model in recipe.models):
        yield posixpath.relpath(_MODEL_LINK, MODELS), recipe.models[0].file.sha256
    for text in recipe.plan.files:
        if text.path.startswith(f"{MODELS}/"):
            yield posixpath.relpath(text.path, MODELS), hashlib.sha256(text.text.encode()).hexdigest()


def _cosign(*arguments: str) -> None:
    """Run cosign, which may ask for the key's password. Raises AikitError."""
    argv: Sequence[str] = ["cosign", *arguments]
    with process.start(argv, stdin=None, stdout=subprocess.DEVNULL) as running:
        if status := running.wait():
            raise process.failure(argv, status, "it says why above")
