"""An image's bill of materials: CycloneDX 1.7, from flake and lock, and from what Debian's packages say that are in the store.

The same materials give the same bytes: no clock, no random serial number. The writer is cyclonedx-python-lib, whose components
know no modelCard: that is added to its JSON. Of the minimum elements that the G7 want of AI (2026-05-12) each cluster is
filled, or said to be unknown: nothing is guessed.

SPDX 3 is not written: its one Python library (spdx-python-model 0.0.6) is classes generated from the schema, and Syft,
Grype, Trivy and Dependency-Track read no SPDX 3 yet.
"""

from __future__ import annotations

import json
import posixpath
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot7
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from aikit_nix import __version__
from aikit_nix.attest import purls
from aikit_nix.base import redact
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.debian import terms
from aikit_nix.debian.index import Package
from aikit_nix.debian.terms import Terms
from aikit_nix.flakes.materials import Materials, ModelMaterial, Source
from aikit_nix.sources import judge

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_UNKNOWN = "unknown"
# Any fixed one: the serial number is a name-based UUID below it
_NAMESPACE = uuid.UUID("0b0f5a5e-6c44-5f0a-9d4c-2f6f0f5f7c1e")


def cyclonedx(materials: Materials, system: str) -> str:
    """The bill of materials of a system's default image, as JSON. Raises AikitError."""
    root = _image(materials, system)
    parts = sorted(_parts(materials, system), key=lambda part: str(part.bom_ref.value))
    bom = Bom(
        components=parts,
        serial_number=uuid.uuid5(
            _NAMESPACE, "\n".join([system, *materials.inputs.values(), materials.lock_digest or ""])
        ),
        metadata=BomMetaData(
            authors=[OrganizationalContact(name="aikit-nix, of what flake and lock say")],
            component=root,
            tools=ToolRepository(
                components=[Component(type=ComponentType.APPLICATION, name="aikit-nix", version=__version__)]
            ),
            timestamp=datetime.fromtimestamp(1, UTC),  # the image's own
        ),
    )
    bom.register_dependency(root, parts)
    return _with_cards(JsonV1Dot7(bom).output_as_string(indent=2), materials) + "\n"


def _with_cards(text: str, materials: Materials) -> str:
    content = json.loads(text)
    cards = {f"model:{model.path}": _card(model) for model in materials.models}
    for component in content["components"]:
        if card := cards.get(component["bom-ref"]):
            component["modelCard"] = card
    return json.dumps(content, indent=2)


def _card(model: ModelMaterial) -> dict[str, Any]:
    """What is known of a model as such: what its GGUF says where it lies in the store, else what the lock does."""
    try:
        header = judge.of_file(model.store_file)
    except (OSError, judge.UnfitError):
        header = None
    facts = header.facts if header else model.facts
    said = {
        "gguf:general.name": header.name if header else None,
        "gguf:context_length": str(facts.context_length) if facts and facts.context_length else None,
        "gguf:chat_template": str(facts.chat_template).lower() if facts else None,
    }
    return {
        "modelParameters": {
            "architectureFamily": _UNKNOWN,
            "modelArchitecture": (header.architecture if header else None) or _UNKNOWN,
            "task": "feature-extraction" if facts and facts.pooling else "text-generation" if facts else _UNKNOWN,
            "datasets": [{"type": "dataset", "name": _UNKNOWN, "classification": _UNKNOWN}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [{"type": _UNKNOWN, "value": _UNKNOWN}]},
        "considerations": {"technicalLimitations": [_UNKNOWN], "useCases": [_UNKNOWN]},
        "properties": [{"name": name, "value": redact.printable(value)} for name, value in said.items() if value],
    }


def _image(materials: Materials, system: str) -> Component:
    name, _, tag = materials.reference(system).rpartition(":")
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=tag,
        bom_ref="image",
        properties=_properties(
            {
                "aikit-nix:aikitfile": f"sha256:{digest}" if (digest := materials.aikitfile_digest) else None,
                "aikit-nix:engine": materials.plan.engine,
                "aikit-nix:packages": materials.plan.packages,
                "aikit-nix:runtime": materials.runtime(system),
                "aikit-nix:system": system,
                # The clusters of the G7's minimum elements, beside models, which are components
                "g7:metadata": f"author, tool and date stand above; made by aikit-nix {__version__} before the build",
                "g7:system-level-properties": f"{materials.plan.engine} serves the models over HTTP; data flow and area of use: {_UNKNOWN}",
                "g7:dataset-properties": _UNKNOWN,
                "g7:infrastructure": f"{system}, {materials.runtime(system)}; software: the components; hardware: {_UNKNOWN}",
                "g7:security-properties": "every component by its hash; vulnerabilities: by the purls; controls: "
                + _UNKNOWN,
                "g7:key-performance-indicators": _UNKNOWN,
            }
        ),
    )


def _parts(materials: Materials, system: str) -> Iterator[Component]:
    for model in materials.models:
        yield _model(model)
    packages = {package.name: package for package in materials.debs(system)}
    for package in packages.values():
        yield _deb(package, ARCHITECTURES[system], materials.debian_suite, terms.of(package, packages))
    for source in materials.sources():
        yield _source(source)


def _model(model: ModelMaterial) -> Component:
    origin = model.origin
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=model.file.sha256)]
    if model.blake3:
        hashes.append(HashType(alg=HashAlgorithm.BLAKE3, content=model.blake3))
    ancestors = [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=base,
            purl=purls.on_hub(base),
        )
        for base in (origin.base_models if origin else ())
    ]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=posixpath.basename(model.path),
        version=(origin.revision if origin else None) or f"sha256:{model.file.sha256}",
        bom_ref=f"model:{model.path}",
        supplier=OrganizationalEntity(
            name=posixpath.dirname((origin.repository if origin else None) or "") or _UNKNOWN
        ),
        hashes=hashes,
        # What the origin says: nobody checked it
        licenses=[
            LicenseFactory().make_from_string(origin.license, license_acknowledgement=LicenseAcknowledgement.DECLARED)
        ]
        if origin and origin.license
        else None,
        purl=purls.of_model(model),
        external_references=(
            [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(model.url))] if model.url else None
        ),
        pedigree=Pedigree(ancestors=ancestors) if ancestors else None,
        properties=_properties(
            {
                "aikit-nix:path": model.path,
                "aikit-nix:size": str(model.file.size) if model.file.size is not None else None,
                "aikit-nix:layer": model.file.layer.digest if model.file.layer else None,
                "aikit-nix:unseen": None if model.seen else "true",
                "aikit-nix:origin": origin.kind if origin else None,
                "aikit-nix:repository": origin.repository if origin else None,
                "aikit-nix:claimed-by-origin": "licence, base models" if origin and origin.repository else None,
            }
        ),
    )


def _deb(package: Package, architecture: str, suite: str, said: Terms) -> Component:
    names = [
        LicenseFactory().make_with_id(name) if is_supported_id(name) else DisjunctiveLicense(name=name)
        for name in said.licenses
    ]
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=f"deb:{package.name}",
        supplier=OrganizationalEntity(name="Debian"),
        publisher=said.maintainer,
        licenses=names or [DisjunctiveLicense(name=f"Debian: /usr/share/doc/{package.name}/copyright")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
        purl=purls.of_deb(package, architecture, suite),
        properties=_properties({"debian:component": package.component, "debian:filename": package.filename}),
    )


def _source(source: Source) -> Component:
    return Component(
        type=ComponentType.APPLICATION,
        name=source.name,
        version=source.version,
        bom_ref=f"source:{source.name}",
        supplier=OrganizationalEntity(
            name=(PackageURL.from_string(source.purl).namespace if source.purl else None) or _UNKNOWN
        ),
        purl=PackageURL.from_string(source.purl) if source.purl else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source.sha256)] if source.is_file else None,
        properties=_properties(
            {
                "aikit-nix:date": source.date,
                "nix:narHash": None if source.is_file else f"sha256:{source.sha256}",
            }
        ),
    )


def _properties(values: dict[str, str | None]) -> list[Property]:
    return [Property(name=name, value=str(value)) for name, value in values.items() if value]
