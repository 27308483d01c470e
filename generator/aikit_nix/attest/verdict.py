"""What a verification came to, as others can enforce it: SLSA's verification summary (VSA), and a rebuild.

https://slsa.dev/spec/v1.2/verification_summary. No time stands in them: the same verdict is the same bytes.
"""

from __future__ import annotations

from typing import Any

from aikit_nix import __version__
from aikit_nix.attest import provenance
from aikit_nix.flakes.materials import Materials

SUMMARY = "https://slsa.dev/verification_summary/v1"
_TOOL = "pkg:generic/aikit-nix"
# No standard has a type for it yet
REBUILD = f"{_TOOL}#rebuild/v1"
# What was verified, in words of our own: how good the builder is (SLSA's levels) was not looked at
EQUAL, BY_POLICY = "AIKIT_NIX_EQUALS_FLAKE", "AIKIT_NIX_POLICY"


def summary(image: str, digest: str, levels: list[str], *, passed: bool, policy: str | None) -> dict[str, Any]:
    """The statement that an image (`digest` is its manifest's) was verified; `policy` is the SHA-256 (hex) of the policy's file."""
    content = {
        "verifier": {"id": _TOOL, "version": {"aikit-nix": __version__}},
        "resourceUri": image,
        "policy": {"uri": f"{_TOOL}#verify/v1"} | ({"digest": {"sha256": policy}} if policy else {}),
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": (levels or ["SLSA_BUILD_LEVEL_UNEVALUATED"]) if passed else ["FAILED"],
        "slsaVersion": "1.2",
    }
    return provenance.statement(SUMMARY, content, image, digest)


def about(materials: Materials, system: str) -> dict[str, Any]:
    """What policies ask of an image beside its digest. Licences are their origins' word."""
    return {
        "runtime": materials.runtime(system),
        "packages": str(materials.plan.packages),
        "engine": str(materials.plan.engine),
        "models": [
            {
                "path": model.path,
                "sha256": model.file.sha256,
                "license": model.origin.license if model.origin else None,
            }
            for model in materials.models
        ],
    }
