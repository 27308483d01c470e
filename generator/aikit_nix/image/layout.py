"""What an image is, as an OCI layout or a docker-archive says: its manifest, its configuration, its layers.

Both may come from anywhere, so nothing in them is believed: sizes are bounded, digests of what is read are checked.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import Struct

from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import error
from aikit_nix.base.typed_json import Digest, Size
from aikit_nix.nix import store
from aikit_nix.registry import manifest
from aikit_nix.registry.reference import DIGEST, digest_of

MANIFEST = manifest.MANIFEST[0]
LAYER = "application/vnd.oci.image.layer.v1.tar"
MODELS_LABEL = "aikit-nix.models"  # JSON: path in the image -> "sha256:…"
_MODEL_LAYER = "model layer: "  # as nix/image/layout.py calls them in the image's history
_STORE_PATHS = re.compile(r"/nix/store/[0-9a-z]{32}-([0-9A-Za-z+._?=-]+)")
# What means something in an index, a manifest, a descriptor, a configuration (OCI image specification, Docker's before it).
_SAID = (
    *("schemaVersion", "mediaType", "artifactType", "manifests", "config", "layers", "subject", "annotations"),
    *("digest", "size", "urls", "data", "platform", "architecture", "os", "variant", "rootfs", "diff_ids", "history"),
    *("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Labels", "Volumes", "ExposedPorts", "Healthcheck", "Shell"),
    *("StopSignal", "OnBuild", "ArgsEscaped"),
)
_KEYS = {key.casefold(): key for key in _SAID}
Word: TypeAlias = Annotated[str, typed_json.form(r"[^\0]*", "no text without a NUL")]
Words: TypeAlias = tuple[Word, ...] | None
T = TypeVar("T")
LIMIT = 32 << 20  # bytes of a manifest, a configuration, a list


@dataclass(frozen=True)
class Layer:
    """A layer as the manifest lists it; `diff_id` is the digest of its uncompressed tar, which here is often the same.

    `created_by` is what the image's history says of it. A docker-archive does not say the digest of a compressed layer.
    """

    digest: str
    size: int  # bytes
    media_type: str
    diff_id: str
    created_by: str

    @property
    def model(self) -> str | None:
        """The path of the model that is the layer (docs/model-layer.md)."""
        return self.created_by.removeprefix(_MODEL_LAYER) if self.created_by.startswith(_MODEL_LAYER) else None

    @property
    def contents(self) -> str:
        """What the image's history says of it, for people: a model, or packages."""
        if self.model:
            return self.model
        if packages := _STORE_PATHS.findall(self.created_by):
            return ", ".join(packages)
        return self.created_by.removeprefix("dockerTools: ") or "(the history does not say)"


@dataclass(frozen=True)
class Image:
    """An image as it is described, and the OCI layout that it was read from: its layers' bytes may be there, or elsewhere.

    `manifest` are the manifest's bytes and `digest` theirs: empty and None for a docker-archive, which has none.
    `config_digest` is what docker and podman call the image's ID.
    """

    manifest: bytes
    digest: str | None
    config_digest: str
    config_size: int  # bytes
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    folder: Path | None = None

    @property
    def run(self) -> Mapping[str, Any]:
        """How it is run: Entrypoint, Cmd, Env, User, Labels …"""
        run: Mapping[str, Any] | None = self.config.get("config")
        return run or {}

    @property
    def labels(self) -> dict[str, str]:
        return {str(key): str(value) for key, value in (self.run.get("Labels") or {}).items()}

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the layers as they are unpacked."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def name(self) -> str:
        """The name that docker and podman find it by; empty where it has none."""
        return short(self.names[0]) if self.names else ""

    @property
    def tag(self) -> str:
        """The tag of that name; `latest` where it has none."""
        return self.name.rpartition(":")[2] or "latest"

    @property
    def wants_gpu(self) -> bool:
        """Whether its server is compiled for a GPU of NVIDIA's."""
        return self.labels.get("aikit-nix.runtime") == "cuda"

    @property
    def size(self) -> int:
        """The bytes of all layers, as they are stored."""
        return sum(layer.size for layer in {layer.digest: layer for layer in self.layers}.values())

    def models(self) -> dict[str, str]:
        """The models' sha256 (hex) by their path in the image."""
        try:
            found = typed_json.decode(self.labels.get(MODELS_LABEL, "{}").encode(), dict[str, Any])
        except ValueError:
            return {}
        return {
            path: str(digest).removeprefix("sha256:")
            for path, digest in sorted(found.items())
            if DIGEST.fullmatch(str(digest))
        }

    def blob(self, digest: str) -> Path | None:
        """Where its layout has a blob; None where it has not."""
        file = blob_path(self.folder, digest) if self.folder else None
        return file if file and file.is_file() else None

    def model_file(self, path: str) -> Path | None:
        """Where this machine's Nix store keeps a model, if it does; None where the image does not say its sha256."""
        sha256 = self.models().get(path)
        return store.store_path(store.name(posixpath.basename(path)), sha256) if sha256 else None


class Described(Struct, frozen=True, rename="camel", kw_only=True):
    """How an index or a manifest names a blob."""

    digest: Digest
    size: Size
    annotations: Mapping[str, str] | None = None


class Listed(Described, frozen=True, rename="camel", kw_only=True):
    """How a manifest names a layer."""

    media_type: str


class _Manifest(Struct):
    config: Described
    layers: tuple[Listed, ...]


class _Index(Struct):
    manifests: tuple[Described, ...]


class _Rootfs(Struct):
    diff_ids: tuple[Digest, ...]


class _Step(Struct):
    created_by: str | None = None
    empty_layer: bool | None = None


class _Healthcheck(Struct):
    Test: Words = None


class _Run(Struct):
    """How it is run, as the OCI image specification has it and a program can be told."""

    Entrypoint: Words = None
    Cmd: Words = None
    Env: Words = None
    User: Word | None = None
    WorkingDir: Word | None = None
    Labels: Mapping[str, Any] | None = None
    Healthcheck: _Healthcheck | None = None


class Configuration(Struct):
    """An image's configuration, as far as it has to be understood."""

    rootfs: _Rootfs
    history: tuple[_Step, ...] | None = None
    config: _Run | None = None

    def layers(self, listed: Sequence[Listed]) -> tuple[Layer, ...]:
        """The layers, which a manifest lists. Raises ValueError."""
        diff_ids = self.rootfs.diff_ids
        if len(diff_ids) != len(listed):
            raise ValueError(f"it has {len(listed)} layers, and its configuration knows {len(diff_ids)}")
        said = [step.created_by or "" for step in self.history or () if not step.empty_layer]
        return tuple(
            Layer(layer.digest, layer.size, layer.media_type, diff_id, created_by)
            for layer, diff_id, created_by in zip(listed, diff_ids, chain(said, repeat("")), strict=False)
        )


def short(name: str) -> str:
    """A name as docker writes it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def make(manifest: bytes, config: bytes, names: Iterable[str], where: str) -> Image:
    """The image of a manifest and its configuration. Raises AikitError where they are none."""
    with refusing(where):
        content = _manifest(manifest)
        if (digest_of(config), len(config)) != (content.config.digest, content.config.size):
            raise error(f"{where}: the configuration has another digest or size than the manifest says", code="image")
        described = configuration(config)
        layers = described.layers(content.layers)
        said = typed_json.parse(config)
        return Image(manifest, digest_of(manifest), content.config.digest, len(config), said, layers, tuple(names))


def is_layout(folder: Path) -> bool:
    """Whether a folder is an OCI layout."""
    return (folder / "oci-layout").is_file() or (folder / "index.json").is_file()


def read_layout(folder: Path) -> Image:
    """The one image of an OCI layout; its layers need not be there. Raises AikitError."""
    image = read_from(
        lambda name: files.read_bounded(folder / name, LIMIT, " (that is no OCI layout)" * (name == "index.json")),
        str(folder),
    )
    return replace(image, folder=folder)


def read_from(content: Callable[[str], bytes], where: str) -> Image:
    """The one image of an OCI layout, whose small files `content` gives by their names in it. Raises AikitError."""

    def blob(described: Described) -> bytes:
        name = blob_name(described.digest)
        data = content(name)
        if digest_of(data) != described.digest or len(data) != described.size:
            raise error(f"{where}: {name} has other bytes than its digest and size say", code="image")
        return data

    index = content("index.json")
    with refusing(where):
        listed = _read(index, _Index, lambda said: (said, *said["manifests"])).manifests
        if len(listed) != 1:
            raise error(f"{where} holds {len(listed)} images, and one is expected", code="image")
        name = (listed[0].annotations or {}).get("io.containerd.image.name")
        manifest = blob(listed[0])
        config = blob(_manifest(manifest).config)
    return make(manifest, config, [name] if name else [], where)


def blob_name(digest: str) -> str:
    """What a blob is called in an OCI layout."""
    return f"blobs/{digest.replace(':', '/')}"


def blob_path(folder: Path, digest: str) -> Path:
    """Where a blob of an OCI layout is, or would be."""
    return folder / blob_name(digest)


def _manifest(manifest: bytes) -> _Manifest:
    return _read(manifest, _Manifest, lambda said: (said, said["config"], *said["layers"]))


def configuration(config: bytes) -> Configuration:
    """What a configuration says. Raises ValueError."""
    return _read(config, Configuration, lambda said: (said, said["rootfs"], said.get("config") or {}))


def _read(data: bytes, kind: type[T], opened: Callable[[Any], Iterable[Mapping[str, Any]]]) -> T:
    """Raises ValueError."""
    content = typed_json.parse(data)
    found = typed_json.convert(content, kind)
    require_exact(opened(content))
    return found


def require_exact(values: Iterable[Mapping[str, Any]]) -> None:
    """Raises ValueError for a key that Go's JSON, which folds the case, takes for one of those that mean something."""
    for key in (key for value in values for key in value):
        if (known := _KEYS.get(key.casefold(), key)) != key:
            raise ValueError(f"it says {key[:80]!r}, which some readers take for {known!r}")


def refusing(where: str) -> AbstractContextManager[None]:
    """What is said of something that is no image."""
    return typed_json.refusing(f"{where} is no image that can be read", code="image")
