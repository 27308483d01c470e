"""SLSA provenance v1 as an in-toto statement: every input by its digest, from flake and lock alone.

https://slsa.dev/spec/v1.0/provenance. Plain JSON: the libraries (in-toto-attestation) bring protobuf for a handful of keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aikit_nix import __version__
from aikit_nix.attest import purls
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.debian.lock import BUILDER
from aikit_nix.flakes.materials import Materials
from aikit_nix.flakes.write import PLAN

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
_TOOL = "pkg:generic/aikit-nix"


def predicate(materials: Materials, system: str, nix_version: str | None = None) -> dict[str, Any]:
    """What `cosign attest --type slsaprovenance1 --predicate` takes. Raises AikitError."""
    plan = materials.plan
    return {
        "buildDefinition": {
            "buildType": f"{_TOOL}#build/v1",
            "externalParameters": {
                **({"aikitfile": {"digest": {"sha256": digest}}} if (digest := materials.aikitfile_digest) else {}),
                "image": materials.reference(system),
                "packages": plan.packages,
                "engine": plan.engine,
                "backends": list(plan.backends),
                "runtime": materials.runtime(system),
                "system": system,
            },
            "internalParameters": {"plan": {"digest": {"sha256": materials.inputs[PLAN]}}},
            "resolvedDependencies": list(_dependencies(materials, system)),
        },
        "runDetails": {
            "builder": {
                "id": f"{_TOOL}@{__version__}",
                "version": {"aikit-nix": __version__} | ({"nix": nix_version} if nix_version else {}),
            }
        },
    }


def statement(predicate_type: str, content: Any, name: str, digest: str) -> dict[str, Any]:
    """An in-toto statement about an image: `digest` is its manifest's, `sha256:…`."""
    algorithm, _, value = digest.partition(":")
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {algorithm: value}}],
        "predicateType": predicate_type,
        "predicate": content,
    }


def encode(value: Any) -> str:
    """The same value gives the same bytes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _dependencies(materials: Materials, system: str) -> Iterator[dict[str, Any]]:
    """in-toto ResourceDescriptors."""
    if materials.lock_digest:
        yield {"name": "aikit.lock", "digest": {"sha256": materials.lock_digest}}
    for name, digest in materials.inputs.items():
        yield {"name": name, "digest": {"sha256": digest}}
    for model in materials.models:
        purl = purls.of_model(model)
        found: dict[str, Any] = {"name": model.path}
        if purl or model.url:
            found["uri"] = str(purl) if purl else model.url
        found["digest"] = {"sha256": model.file.sha256}
        if model.blake3:
            found["digest"]["blake3"] = model.blake3
        if model.url and purl:
            found["downloadLocation"] = model.url
        if not model.seen:
            found["annotations"] = {"unseen": True}  # the layer's digest is the lock's word
        yield found
    for role, architecture, packages in (
        ("image", ARCHITECTURES[system], materials.debs(system)),
        ("tool", ARCHITECTURES[BUILDER], materials.tools()),
    ):
        for package in packages:
            yield {
                "name": package.name,
                "uri": str(purls.of_deb(package, architecture, materials.debian_suite)),
                "digest": {"sha256": package.sha256},
                "downloadLocation": materials.deb_url(package),
                "annotations": {"role": role},
            }
    for source in materials.sources():
        uri = {"uri": source.purl} if source.purl else {}
        kind = "sha256" if source.is_file else "narSha256"
        yield {"name": source.name} | uri | {"digest": {kind: source.sha256}}
