"""The models alone, as a ModelPack artifact: each file as a raw blob, whose digest is the file's own SHA-256.

So the manifest follows from the plan and the lock, and needs no model on this machine where the registry has them.
https://github.com/modelpack/model-spec, version 1.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aikit_nix.base.errors import error
from aikit_nix.flakes.materials import Materials, ModelMaterial
from aikit_nix.image import layout
from aikit_nix.image.push import Content, Elsewhere
from aikit_nix.registry import artifact
from aikit_nix.registry.blob import Blob, Part
from aikit_nix.sources import MODELS

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
_FILE_PATH = "org.cncf.model.filepath"
_TITLE = "org.opencontainers.image.title"  # what oras names a file by
_WEIGHTS = (".bin", ".gguf", ".onnx", ".pt", ".pth", ".safetensors")
_DOCUMENTS = (".md", ".txt", ".pdf")


def make(materials: Materials, elsewhere: Elsewhere | None = None) -> Content:
    """The artifact of the models. Raises AikitError where nobody has said how large a model is."""
    if not materials.models:
        raise error("the plan has no models to push", code="no-models")
    models = sorted(materials.models, key=lambda model: model.path)
    blobs = tuple(_blob(model, elsewhere) for model in models)
    config = Blob.of(artifact.encode(_config(materials, blobs)), "the model's configuration")
    layers = [
        artifact.descriptor(_media_type(model.path), blob, annotations=_annotations(model))
        for model, blob in zip(models, blobs, strict=True)
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": layout.MANIFEST,
        "artifactType": ARTIFACT,
        "config": artifact.descriptor(CONFIG, config),
        "layers": layers,
    }
    return Content(layout.MANIFEST, artifact.encode(manifest), (config, *blobs))


def _blob(model: ModelMaterial, elsewhere: Elsewhere | None) -> Blob:
    if model.file.size is None:
        raise error(
            f"{model.path}: nobody has said how large it is: run `aikit-nix lock`, then `aikit-nix gen`", code="lock"
        )
    file = model.store_file
    content: Path | Part | None = file if file.is_file() else None
    if content is None and elsewhere:
        content = elsewhere.find(model.path, model.file.sha256)
    return Blob(f"sha256:{model.file.sha256}", model.file.size, model.path, (content,) if content else None, file)


def _annotations(model: ModelMaterial) -> dict[str, str]:
    path = posixpath.relpath(model.path, MODELS)
    return {_FILE_PATH: path, _TITLE: path}


def _media_type(path: str) -> str:
    suffix = posixpath.splitext(path)[1].lower()
    kind = "weight" if suffix in _WEIGHTS else "doc" if suffix in _DOCUMENTS else "weight.config"
    return f"application/vnd.cncf.model.{kind}.v1.raw"


def _config(materials: Materials, blobs: Sequence[Blob]) -> dict[str, Any]:
    """What the specification asks for, and what is known of a model that comes from one place."""
    origins = {model.origin for model in materials.models}
    origin = origins.pop() if len(origins) == 1 else None
    descriptor: dict[str, Any] = {"name": materials.plan.image.name}
    if origin:
        if origin.kind == "huggingface":
            descriptor["sourceURL"] = f"https://huggingface.co/{origin.repository}"
        if origin.revision:
            descriptor["revision"] = origin.revision
        if origin.license:
            descriptor["licenses"] = [origin.license]
    formats = {posixpath.splitext(model.path)[1].lstrip(".").lower() for model in materials.models}
    return {
        "descriptor": descriptor,
        "config": {"format": formats.pop()} if len(formats) == 1 and formats <= {"gguf", "onnx", "safetensors"} else {},
        "modelfs": {"type": "layers", "diffIds": [blob.digest for blob in blobs]},
    }
