"""`oci://`: a model in a registry, as Ollama, ModelPack, Docker, KitOps or oras put it there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aikit_nix.base.errors import RefusedError
from aikit_nix.registry import reference
from aikit_nix.registry.reference import DIGEST, Reference
from aikit_nix.sources.names import file_name, relative_path

if TYPE_CHECKING:
    from aikit_nix.http.client import Client
    from aikit_nix.registry.client import Repository


def read(text: str) -> Reference:
    """Understand an oci:// address whose last word is a file's name. Raises RefusedError."""
    found = reference.read(text)
    file_name(found.file)
    return found


# --- How it is pinned

_TITLE = "org.opencontainers.image.title"
_FILE_PATH = "org.cncf.model.filepath"  # ModelPack
_UNPACK = "io.deis.oras.content.unpack"  # oras: a folder, as a tar
_OLLAMA = "application/vnd.ollama.image."
_OLLAMA_MODEL = _OLLAMA + "model"
_DOCKER_GGUF = "application/vnd.docker.ai.gguf"
_ARCHIVE = re.compile(r"\.tar(\+gzip|\+zstd)?$|/tar(\+gzip)?$")
_MAX_LAYERS = 1000


@dataclass(frozen=True)
class Blob:
    """A file of an artifact: where it lands below /models, and the blob that holds it; a tar holds several."""

    path: str
    digest: str
    size: int
    is_archive: bool = False
    is_gguf: bool = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of the blob in hex."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True)
class Description:
    """An artifact at a digest, and its files."""

    digest: str
    blobs: tuple[Blob, ...]


def repository(source: Reference, client: Client) -> Repository:
    """The repository in its registry, to be read."""
    from aikit_nix.registry.client import Repository

    return Repository(client, source.registry, source.repository)


def describe(source: Reference, client: Client) -> Description:
    """What an artifact holds: one or two small requests, no weights. Raises AikitError and RefusedError."""
    there = repository(source, client)
    manifest = there.manifest(source.reference)
    if manifest.is_index:
        manifest = there.manifest(_only_manifest(manifest.content))
    layers = manifest.content.get("layers")
    if (
        not isinstance(layers, list)
        or not all(isinstance(layer, dict) for layer in layers)
        or len(layers) > _MAX_LAYERS
    ):
        raise RefusedError("is no artifact: its manifest has no list of layers")
    kinds = [str(layer.get("mediaType")) for layer in layers]
    # A copy of Ollama's artifact in another registry is one, too
    is_ollama = source.is_ollama or any(kind.startswith(_OLLAMA) for kind in kinds)
    blobs = tuple(_ollama(source, layers) if is_ollama else _files(source, layers))
    if not blobs:
        kind = manifest.content.get("artifactType") or _mapping(manifest.content.get("config")).get("mediaType")
        raise RefusedError(f"holds no file of a model (it is {str(kind)[:100]!r}): is it a container image?")
    paths = [blob.path for blob in blobs if not blob.is_archive]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise RefusedError(f"has two files that are both called `{twice}`")
    return Description(manifest.digest, blobs)


def _only_manifest(index: Mapping[str, Any]) -> str:
    """The digest of an index's manifest; of several, the one for linux/amd64: a model is the same on all."""
    listed = index.get("manifests")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    real = [entry for entry in entries if _platform(entry)[0] != "unknown"] or entries
    if len(real) > 1:
        real = [entry for entry in real if _platform(entry) == ("linux", "amd64")]
    if len(real) != 1 or not DIGEST.fullmatch(str(real[0].get("digest"))):
        raise RefusedError("is an index of several artifacts: name one by its digest")
    return str(real[0]["digest"])


def _platform(entry: Mapping[str, Any]) -> tuple[object, object]:
    platform = _mapping(entry.get("platform"))
    return platform.get("os"), platform.get("architecture")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _ollama(source: Reference, layers: Sequence[Mapping[str, Any]]) -> Iterator[Blob]:
    models = [layer for layer in layers if layer.get("mediaType") == _OLLAMA_MODEL]
    if not models and any(str(layer.get("mediaType")).endswith(".tensor") for layer in layers):
        raise RefusedError(
            "holds tensors for Ollama's own engine, no GGUF: choose another tag, or a GGUF from Hugging Face"
        )
    if len(models) > 1:
        raise RefusedError(f"holds {len(models)} model files, where AIKit expects one")
    for layer in models:
        yield _blob(source.file, layer, is_gguf=True)


def _files(source: Reference, layers: Sequence[Mapping[str, Any]]) -> Iterator[Blob]:
    for layer in layers:
        notes = _mapping(layer.get("annotations"))
        media_type = str(layer.get("mediaType"))
        path = notes.get(_FILE_PATH) or notes.get(_TITLE)
        if not path and media_type.startswith(_DOCKER_GGUF):
            path = f"{source.file}.gguf"
        is_archive = bool(_ARCHIVE.search(media_type)) or notes.get(_UNPACK) == "true"
        if not path and is_archive and ("kitops" in media_type or ".cncf.model." in media_type):
            path = source.file
        if path:
            is_gguf = not is_archive and str(path).lower().endswith(".gguf")
            yield _blob(relative_path(str(path)), layer, is_archive=is_archive, is_gguf=is_gguf)


def _blob(path: str, layer: Mapping[str, Any], *, is_archive: bool = False, is_gguf: bool = False) -> Blob:
    digest, size = layer.get("digest"), layer.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise RefusedError(f"has a layer whose digest is no sha256: {str(digest)[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise RefusedError(f"has a layer of {str(size)[:30]} bytes")
    return Blob(path, digest, size, is_archive, is_gguf)
