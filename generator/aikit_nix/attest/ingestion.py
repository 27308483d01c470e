"""How a model came in: one in-toto statement a model, about its file, from flake and lock alone; the same bytes each time.

Of SLSA's tracks the draft one for dependencies asks for this, and has no predicate type yet: who said what of the file, where
it was taken from at which fixed revision, what of it was checked here, and by what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aikit_nix import __version__
from aikit_nix.attest import provenance, purls
from aikit_nix.flakes.materials import Materials, ModelMaterial

PREDICATE_TYPE = "pkg:generic/aikit-nix#ingestion/v1"


def statements(materials: Materials) -> Iterator[dict[str, Any]]:
    """The statement of each model whose claims were compared (`Materials.compared`), in their order."""
    for model in materials.models:
        found = provenance.statement(PREDICATE_TYPE, _predicate(model), model.path, f"sha256:{model.file.sha256}")
        if model.blake3:
            found["subject"][0]["digest"]["blake3"] = model.blake3
        yield found


def _predicate(model: ModelMaterial) -> dict[str, Any]:
    origin, purl = model.origin, purls.of_model(model)
    source: dict[str, Any] = {"kind": origin.kind if origin else "unknown"}
    source |= {"purl": str(purl)} if purl else {}
    source |= {"downloadLocation": model.url} if model.url else {}
    if origin and origin.repository and origin.revision:
        source |= {"repository": origin.repository, "revision": origin.revision}
    said = {"license": origin.license, "baseModels": list(origin.base_models)} if origin else {}
    checked: dict[str, Any] = {"sha256": model.file.sha256}
    checked |= {"blake3": model.blake3} if model.blake3 else {}
    checked |= {"size": model.file.size} if model.file.size is not None else {}
    checked |= {"layer": model.file.layer.digest} if model.file.layer else {}
    return {
        "source": source,
        # The origin's own word, which nobody checked
        "claimedByOrigin": {key: value for key, value in said.items() if value},
        # Against the bytes, where these were on this machine; else what aikit.lock says
        "checkedAgainstBytes" if model.seen else "unseen": checked,
        "verifier": {"id": "pkg:generic/aikit-nix", "version": {"aikit-nix": __version__}},
    }
