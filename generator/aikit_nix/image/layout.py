"""What an image is, as an OCI layout or a docker-archive says: its manifest, its configuration, its layers.

Both may come from anywhere, so nothing in them is believed: sizes are bounded, digests of what is read are checked.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aikit_nix.base import files, strict_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.nix import store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MODELS_LABEL = "aikit-nix.models"  # JSON: path in the image -> "sha256:…"
_MODEL_LAYER = "model layer: "  # as nix/image/layout.py calls them in the image's history
_STORE_PATHS = re.compile(r"/nix/store/[0-9a-z]{32}-([0-9A-Za-z+._?=-]+)")
# What means something in an index, a manifest, a descriptor, a configuration (OCI image specification, Docker's before it).
_KEYS = (
    *("schemaVersion", "mediaType", "artifactType", "manifests", "config", "layers", "subject", "annotations"),
    *("digest", "size", "urls", "data", "platform", "architecture", "os", "variant", "rootfs", "diff_ids", "history"),
    *("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Labels", "Volumes", "ExposedPorts", "Healthcheck", "Shell"),
    *("StopSignal", "OnBuild", "ArgsEscaped"),
)
ARCHIVE_KEYS = {"Config", "Layers", "RepoTags", "Parent", "LayerSources"}  # of a docker-archive's list
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
        return _mapping(self.config.get("config"))

    @property
    def labels(self) -> dict[str, str]:
        return {str(key): str(value) for key, value in _mapping(self.run.get("Labels")).items()}

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
            said = json.loads(self.labels.get(MODELS_LABEL, "{}"))
            found = {str(path): str(digest) for path, digest in said.items()}
        except (ValueError, AttributeError, RecursionError):
            return {}
        return {
            path: digest.removeprefix("sha256:") for path, digest in sorted(found.items()) if DIGEST.fullmatch(digest)
        }

    def blob(self, digest: str) -> Path | None:
        """Where its layout has a blob; None where it has not."""
        file = blob_path(self.folder, digest) if self.folder else None
        return file if file and file.is_file() else None

    def model_file(self, path: str) -> Path | None:
        """Where this machine's Nix store keeps a model, if it does; None where the image does not say its sha256."""
        sha256 = self.models().get(path)
        return store.store_path(store.name(posixpath.basename(path)), sha256) if sha256 else None


def short(name: str) -> str:
    """A name as docker writes it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def make(manifest: bytes, config: bytes, names: Iterable[str], where: str) -> Image:
    """The image of a manifest and its configuration. Raises AikitError where they are none."""
    try:
        content = strict_json.parse(manifest)
        described = content["config"]
        for each in (content, described, *content["layers"]):
            spelt(each)
        if (digest_of(config), len(config)) != (described["digest"], described["size"]):
            raise error(f"{where}: the configuration has another digest or size than the manifest says", code="image")
        return Image(
            manifest,
            digest_of(manifest),
            _digest(described["digest"]),
            len(config),
            *configuration(config, content["layers"]),
            tuple(names),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise no_image(where, bad) from None


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

    def blob(described: Mapping[str, Any]) -> bytes:
        spelt(described)
        digest = _digest(described["digest"])
        data = content(f"blobs/{digest.replace(':', '/')}")
        if digest_of(data) != digest or len(data) != described["size"]:
            raise error(
                f"{where}: blobs/{digest.replace(':', '/')} has other bytes than its digest and size say", code="image"
            )
        return data

    index = content("index.json")
    try:
        listed = strict_json.parse(index)
        spelt(listed)
        if len(listed["manifests"]) != 1:
            raise error(f"{where} holds {len(listed['manifests'])} images, and one is expected", code="image")
        entry = listed["manifests"][0]
        notes = _mapping(entry.get("annotations"))
        names = [str(notes[key]) for key in ("io.containerd.image.name",) if key in notes]
        manifest = blob(entry)
        return make(manifest, blob(strict_json.parse(manifest)["config"]), names, where)
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise no_image(where, bad) from None


def blob_path(folder: Path, digest: str) -> Path:
    """Where a blob of an OCI layout is, or would be."""
    return folder / "blobs" / digest.replace(":", "/")


def digest_of(data: bytes) -> str:
    """A digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(config: bytes, listed: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], tuple[Layer, ...]]:
    """A configuration, and the layers as a manifest lists them. Raises ValueError, KeyError, TypeError."""
    content = strict_json.parse(config)
    if not isinstance(content, dict):
        raise TypeError("its configuration is no object")
    for each in (content, content["rootfs"], content.get("config") or {}):
        spelt(each)
    _check_run(content.get("config"))
    diff_ids = content["rootfs"]["diff_ids"]
    if len(diff_ids) != len(listed):
        raise ValueError(f"it has {len(listed)} layers, and its configuration knows {len(diff_ids)}")
    said = [str(step.get("created_by", "")) for step in content.get("history") or () if not step.get("empty_layer")]
    said += [""] * (len(listed) - len(said))
    layers = tuple(
        Layer(_digest(layer["digest"]), _positive(layer["size"]), str(layer["mediaType"]), _digest(diff_id), created_by)
        for layer, diff_id, created_by in zip(listed, diff_ids, said[: len(listed)], strict=True)
    )
    return content, layers


def spelt(value: Mapping[str, Any], keys: Iterable[str] = _KEYS) -> None:
    """Raises ValueError for a key that Go's JSON, which folds the case, takes for one of those that mean something."""
    meant = {key.casefold(): key for key in keys}
    for key in value:
        if (known := meant.get(key.casefold(), key)) != key:
            raise ValueError(f"it says {key[:80]!r}, which some readers take for {known!r}")


def _check_run(run: object) -> None:
    """Raises ValueError for what is not as the OCI image specification has it, or no program could be told."""
    if run is None:
        return
    if not isinstance(run, dict):
        raise ValueError("its `config` is no object")
    for key in ("Labels", "Healthcheck"):
        if not isinstance(run.get(key) or {}, dict):
            raise ValueError(f"its {key} is no object")
    lists = {key: run.get(key) for key in ("Entrypoint", "Cmd", "Env")}
    lists["Healthcheck"] = (run.get("Healthcheck") or {}).get("Test")
    for key, words in lists.items():
        if not (words is None or (isinstance(words, list) and all(map(_is_word, words)))):
            raise ValueError(f"its {key} is no list of texts")
    for key in ("User", "WorkingDir"):
        if not (run.get(key) is None or _is_word(run[key])):
            raise ValueError(f"its {key} is no text")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def no_image(where: str, bad: BaseException) -> AikitError:
    """What is said of something that is no image."""
    lacks = f"it lacks {bad}" if isinstance(bad, KeyError) else " ".join(str(bad).split())[:200]
    return error(f"{where} is no image that can be read ({lacks})", code="image")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(value: object) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} is no sha256 digest")
    return value


def _positive(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:80]!r} is no size")
    return value
