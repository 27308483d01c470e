"""`oci://`: a model in a registry, as Ollama, ModelPack, Docker, KitOps or oras put it there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aikit_nix.base.errors import RefusedError
from aikit_nix.registry import reference
from aikit_nix.registry.manifest import Descriptor, Platform, Said
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

# Where a layer says the path of its file: ModelPack (and Docker), ModelPack before it was CNCF's (and RamaLama), oras
_PATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
_UNPACK = "io.deis.oras.content.unpack"  # oras: a folder, as a tar
_OLLAMA = "application/vnd.ollama.image."
_TENSORS = _OLLAMA + "tensor"
# oras calls every file a tar, and says otherwise where it is one; so this is asked of packagers alone that mean it.
_ARCHIVE = re.compile(
    r"application/vnd\.(cncf\.model|cnai\.model|kitops\.modelkit|docker\.ai)\..*\.tar(\+(gzip|zstd))?"
)


@dataclass(frozen=True)
class MediaKind:
    """What a layer of some media type is, where its file has no path: `name` is the file's; several `parts` are one model.

    A kind without a name is left out; `text` then says what that is, if the model may answer otherwise without it.
    """

    pattern: str
    name: str = ""
    parts: bool = False
    text: str = ""


# Sources: docker/model-runner's pkg/distribution/types/config.go and internal/bundle/unpack.go (parts in the order of the
# layers), ollama's server/images.go, modelpack's specs-go, kitops' pkg/lib/constants/mediatype. docs/pins.md has the table.
KINDS = (
    MediaKind(r"application/vnd\.ollama\.image\.model", "{name}", parts=True),
    MediaKind(r"application/vnd\.ollama\.image\.projector", "mmproj-{name}.gguf"),
    MediaKind(r"application/vnd\.ollama\.image\.adapter", "{name}-adapter.gguf"),
    MediaKind(r"application/vnd\.ollama\.image\.(template|prompt)", text="its prompt template"),
    MediaKind(r"application/vnd\.ollama\.image\.system", text="its system prompt"),
    MediaKind(r"application/vnd\.ollama\.image\.params", text="its parameters"),
    MediaKind(r"application/vnd\.ollama\.image\.messages", text="its messages"),
    MediaKind(r"application/vnd\.ollama\.image\..*"),
    MediaKind(r"application/vnd\.docker\.ai\.gguf.*", "{name}.gguf", parts=True),
    MediaKind(r"application/vnd\.docker\.ai\.safetensors", "{name}.safetensors", parts=True),
    MediaKind(r"application/vnd\.docker\.ai\.dduf", "{name}.dduf"),
    MediaKind(r"application/vnd\.docker\.ai\.mmproj", "mmproj-{name}.gguf"),
    MediaKind(r"application/vnd\.docker\.ai\.chat\.template.*", text="its chat template"),
    MediaKind(r"application/vnd\.docker\.ai\.license"),
    MediaKind(r"application/vnd\.(cncf\.model|cnai\.model|kitops\.modelkit)\.dataset\..*", text="a dataset"),
)
_MAX_LAYERS = 1000


@dataclass(frozen=True)
class ArtifactFile:
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
    """An artifact at a digest, and its files; `left_out` is what else it has that a server could be told."""

    digest: str
    blobs: tuple[ArtifactFile, ...]
    left_out: tuple[str, ...] = ()


def repository(source: Reference, client: Client) -> Repository:
    """The repository in its registry, to be read."""
    from aikit_nix.registry.client import Repository

    return Repository(client, source.registry, source.repository)


def describe(source: Reference, client: Client) -> Description:
    """What an artifact holds: one or two small requests, no weights. Raises AikitError and RefusedError."""
    there = repository(source, client)
    manifest = there.manifest(source.reference)
    if manifest.is_index:
        manifest = there.manifest(_only_manifest(manifest.said))
    layers = manifest.said.layers
    if layers is None or len(layers) > _MAX_LAYERS:
        raise RefusedError("is no artifact: its manifest has no list of layers")
    blobs = tuple(_files(source, layers))
    if not blobs and any(layer.media_type == _TENSORS for layer in layers):
        raise RefusedError(
            "holds tensors for Ollama's own engine, no GGUF: choose another tag, or a GGUF from Hugging Face"
        )
    if not blobs:
        kind = manifest.said.artifact_type or (manifest.said.config and manifest.said.config.media_type)
        raise RefusedError(f"holds no file of a model (it is {str(kind)[:100]!r}): is it a container image?")
    paths = [blob.path for blob in blobs if not blob.is_archive]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise RefusedError(f"has two files that are both called `{twice}`")
    return Description(manifest.digest, blobs, tuple(dict.fromkeys(_left_out(layers))))


def _only_manifest(index: Said) -> str:
    """The digest of an index's manifest; of several, the one for linux/amd64: a model is the same on all."""
    entries = index.manifests or ()
    real = [each for each in entries if each.platform is None or each.platform.os != "unknown"] or entries
    if len(real) > 1:
        real = [each for each in real if each.platform == Platform("linux", "amd64")]
    if len(real) != 1 or not DIGEST.fullmatch(str(real[0].digest)):
        raise RefusedError("is an index of several artifacts: name one by its digest")
    return str(real[0].digest)


def _kind(layer: Descriptor) -> MediaKind | None:
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, layer.media_type)), None)


def _path(layer: Descriptor) -> object:
    if layer.media_type.startswith(_OLLAMA):
        return None  # whatever a copy is called: AIKit names the model by its repository
    notes = layer.annotations or {}
    return next((notes[name] for name in _PATHS if name in notes), None)


def _is_archive(layer: Descriptor) -> bool:
    return (layer.annotations or {}).get(_UNPACK) == "true" or bool(_ARCHIVE.fullmatch(layer.media_type))


def _files(source: Reference, layers: Sequence[Descriptor]) -> Iterator[ArtifactFile]:
    kinds = [_kind(layer) for layer in layers]
    seen: Counter[MediaKind] = Counter()
    for kind, layer in zip(kinds, layers, strict=True):
        path, is_archive = _path(layer), _is_archive(layer)
        if kind and not kind.name:
            continue
        if kind and not path:
            seen[kind] += 1
            path = _numbered(kind, source.file, seen[kind], kinds.count(kind))
        if path or is_archive:
            is_gguf = not is_archive and (layer.media_type == f"{_OLLAMA}model" or str(path).lower().endswith(".gguf"))
            yield _blob(relative_path(str(path or source.file)), layer, is_archive=is_archive, is_gguf=is_gguf)


def _left_out(layers: Sequence[Descriptor]) -> Iterator[str]:
    for layer in layers:
        kind = _kind(layer)
        if kind and kind.text:
            yield kind.text
        elif not kind and not _path(layer) and not _is_archive(layer):
            yield f"a layer without a name ({layer.media_type[:100]})"


def _numbered(kind: MediaKind, name: str, number: int, count: int) -> str:
    """The name of the number-th layer of a kind; parts are named as llama.cpp looks for them."""
    path = kind.name.format(name=name)
    if count == 1:
        return path
    suffix = kind.name.rpartition("}")[2].rpartition(".")[2] or "gguf"
    if kind.parts:
        return f"{name}-{number:05}-of-{count:05}.{suffix}"
    return f"{path.removesuffix('.' + suffix)}-{number}.{suffix}"


def _blob(path: str, layer: Descriptor, *, is_archive: bool = False, is_gguf: bool = False) -> ArtifactFile:
    digest, size = layer.digest, layer.size
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise RefusedError(f"has a layer whose digest is no sha256: {str(digest)[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise RefusedError(f"has a layer of {str(size)[:30]} bytes")
    return ArtifactFile(path, digest, size, is_archive, is_gguf)
