"""A manifest or an index in a registry, as it stands there: the OCI image specification's, and Docker's before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msgspec import Struct

from aikit_nix.base import typed_json

INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


class Platform(Struct, frozen=True):
    """What an index lists a manifest for."""

    os: str = ""
    architecture: str = ""


class Descriptor(Struct, frozen=True, rename="camel"):
    """How a manifest or an index names a blob; digest and size are as they were said."""

    digest: Any = None
    size: Any = None
    media_type: str = ""
    artifact_type: str | None = None
    annotations: Mapping[str, Any] | None = None
    platform: Platform | None = None


class Said(Struct, frozen=True, rename="camel"):
    """What a manifest or an index says; None where it says nothing of that."""

    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as its bytes stand in the registry."""

    media_type: str
    digest: str
    data: bytes
    content: Mapping[str, Any]

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests for platforms."""
        return self.media_type in INDEX or "manifests" in self.content

    @cached_property
    def said(self) -> Said:
        """What it says; nothing where that makes no sense."""
        try:
            return typed_json.convert(self.content, Said)
        except ValueError:
            return Said()
