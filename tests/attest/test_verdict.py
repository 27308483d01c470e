"""A verdict as a statement: SLSA's verification summary, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

from aikit_nix.attest import provenance, verdict
from aikit_nix.flakes import materials
from support import recipes

DIGEST = "sha256:" + "1" * 64


def test_a_summary_has_what_slsa_wants() -> None:
    """https://slsa.dev/spec/v1.2/verification_summary: the fields that are not optional, and no level that was not looked at."""
    found = verdict.summary("ghcr.io/me/x:1", DIGEST, [verdict.EQUAL], passed=True, policy="2" * 64)
    predicate = found["predicate"]
    assert {"verifier", "resourceUri", "policy", "verificationResult", "verifiedLevels"} <= predicate.keys()
    assert predicate["policy"]["digest"] == {"sha256": "2" * 64}
    assert not any(level.startswith("SLSA_BUILD_LEVEL_") for level in predicate["verifiedLevels"])
    assert provenance.encode(found) == provenance.encode(
        verdict.summary("ghcr.io/me/x:1", DIGEST, [verdict.EQUAL], passed=True, policy="2" * 64)
    )


def test_what_failed_has_no_level() -> None:
    predicate = verdict.summary("x", DIGEST, [verdict.EQUAL], passed=False, policy=None)["predicate"]
    assert (predicate["verificationResult"], predicate["verifiedLevels"]) == ("FAILED", ["FAILED"])


def test_what_policies_ask_is_of_the_recipe(tmp_path: Path) -> None:
    content = recipes.write(tmp_path)
    assert verdict.about(materials.read(tmp_path), "x86_64-linux") == {
        "runtime": "avx2",
        "packages": "debian",
        "engine": "llama-server",
        "models": [
            {"path": "/models/llama.gguf", "sha256": recipes.sha256(content), "license": "apache-2.0"},
        ],
    }
