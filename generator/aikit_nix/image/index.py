"""One OCI index over the images of a flake for several architectures: one tag, of which each machine takes its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aikit_nix.base.errors import error
from aikit_nix.image import layout
from aikit_nix.image import push as pushing
from aikit_nix.image.find import Layout
from aikit_nix.image.push import Outcome, Sending
from aikit_nix.registry import artifact
from aikit_nix.registry.client import INDEX
from aikit_nix.registry.reference import Reference


def make(images: Sequence[Layout]) -> bytes:
    """The index's bytes: the same images give the same. Raises AikitError for two images of one architecture."""
    entries = sorted((_entry(each) for each in images), key=lambda entry: str(entry["platform"]["architecture"]))
    platforms = [entry["platform"]["architecture"] for entry in entries]
    if len(set(platforms)) < len(platforms):
        raise error(f"an index has one image an architecture, and these are for {', '.join(platforms)}", code="index")
    # What all of them say
    common = set.intersection(*(set(each.image.labels.items()) for each in images))
    notes = {key: value for key, value in sorted(common) if key.startswith("org.opencontainers.")}
    return artifact.encode({"schemaVersion": 2, "mediaType": INDEX[0], "manifests": entries, "annotations": notes})


def _entry(found: Layout) -> dict[str, Any]:
    image = found.image
    return {
        "mediaType": layout.MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "platform": {"architecture": str(image.config.get("architecture")), "os": "linux"},
    }


def push(images: Sequence[Layout], target: Reference, how: Sending) -> tuple[str, list[Outcome]]:
    """Push every image by its digest, then the index under the tag; its digest, and what was done for each image.

    Raises AikitError; the tag is as it was then.
    """
    index = make(images)
    done = []
    for each in images:
        by_digest = replace(target, reference=str(each.image.digest))
        done.append(pushing.push(each.image, each.folder, by_digest, how))
    with how.into(target) as (repository, _):
        digest = repository.put_manifest(target.reference, INDEX[0], index)
    return digest, done
