"""What is said about an image in a registry, and that it is said about the right one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.attest import envelope, ingestion, provenance, reproduce, sbom
from aikit_nix.base.errors import error
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.flakes.materials import Materials
from aikit_nix.http.client import Client
from aikit_nix.image import blobs
from aikit_nix.nix import command as nix
from aikit_nix.registry import reference
from aikit_nix.registry.artifact import Referrer
from aikit_nix.registry.client import Repository
from aikit_nix.registry.manifest import Manifest


@dataclass(frozen=True)
class Subject:
    """An image in a registry that is what its materials give for a system."""

    repository: Repository
    manifest: Manifest
    materials: Materials
    system: str

    @property
    def name(self) -> str:
        """REGISTRY/REPOSITORY@DIGEST."""
        return f"{self.repository}@{self.manifest.digest}"

    def bill(self) -> str:
        """The bill of materials."""
        return sbom.cyclonedx(self.materials, self.system)

    def predicate(self) -> dict[str, Any]:
        """The provenance."""
        return provenance.predicate(self.materials, self.system, nix.version())


def subject(text: str, materials: Materials, system: str, client: Client, *, insecure: bool | None) -> Subject:
    """Find an image in its registry, and build what the flake gives (without the models' bytes) to compare.

    Raises AikitError where they are not the same.
    """
    target = reference.parse(text)
    there = Repository(client, target.registry, target.repository, actions="pull,push", insecure=insecure)
    manifest = there.manifest(target.reference)
    if manifest.is_index:
        manifest = there.manifest(blobs.chosen(manifest, text, ARCHITECTURES[system]))
    built = reproduce.built(materials, system)
    if manifest.digest != built.digest:
        raise error(
            f"{target.name} is {manifest.digest}, and the flake in {materials.folder.resolve()} gives {built.digest}: nothing can be "
            "said about it from here (`aikit-nix verify` tells what differs)",
            code="other-image",
        )
    return Subject(
        there, manifest, materials.compared(unseen=True), system
    )  # the build may have brought what it derived


def referrers(found: Subject) -> Iterator[Referrer]:
    """The bill of materials, the provenance and how each model came in, as they stand beside the image."""
    yield Referrer(sbom.MEDIA_TYPE, found.bill().encode(), {})
    slsa = provenance.statement(
        provenance.PREDICATE_TYPE, found.predicate(), str(found.repository), found.manifest.digest
    )
    for statement in (slsa, *ingestion.statements(found.materials)):
        content = provenance.encode(statement).encode()
        yield Referrer(provenance.MEDIA_TYPE, content, {"in-toto.io/predicate-type": statement["predicateType"]})


def given(file: Path, digest: str) -> Referrer:
    """A statement that somebody made of the image, as it stands beside it: plain, or a bundle of sigstore, which cosign finds.

    Raises AikitError where it is about another one.
    """
    found = envelope.read(file)
    if not found.is_about(digest):
        raise error(f"{file} is about {', '.join(found.subjects()[:3]) or 'nothing'}, and the image is {digest}")
    notes = {"in-toto.io/predicate-type": found.predicate_type}
    if found.signatures:
        # https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
        kind = {"content": "dsse-envelope", "predicateType": found.predicate_type}
        notes |= {f"dev.sigstore.bundle.{name}": value for name, value in kind.items()}
    return Referrer(envelope.BUNDLE if found.signatures else provenance.MEDIA_TYPE, file.read_bytes(), notes)
