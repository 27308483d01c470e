"""One OCI index over the images of a flake for several architectures: one tag, of which each machine takes its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aikit_nix.base.errors import error
from aikit_nix.image import layout
from aikit_nix.image.layout import Image
from aikit_nix.image.push import Content
from aikit_nix.registry import artifact
from aikit_nix.registry.manifest import INDEX


def make(images: Sequence[Image]) -> Content:
    """The index: the same images give the same. Raises AikitError for two images of one architecture."""
    entries = sorted((_entry(each) for each in images), key=lambda entry: str(entry["platform"]["architecture"]))
    platforms = [entry["platform"]["architecture"] for entry in entries]
    if len(set(platforms)) < len(platforms):
        raise error(f"an index has one image an architecture, and these are for {', '.join(platforms)}", code="index")
    # What all of them say
    common = set.intersection(*(set(each.labels.items()) for each in images))
    notes = {key: value for key, value in sorted(common) if key.startswith("org.opencontainers.")}
    content = {"schemaVersion": 2, "mediaType": INDEX[0], "manifests": entries, "annotations": notes}
    return Content(INDEX[0], artifact.encode(content))


def _entry(image: Image) -> dict[str, Any]:
    return {
        "mediaType": layout.MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "platform": {"architecture": str(image.config.get("architecture")), "os": "linux"},
    }
