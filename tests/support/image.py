"""Reads and unpacks a container image: a docker-archive or an OCI layout.

Every layer's digest is checked against the image's configuration while it is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from aikit_nix.base import tar
from aikit_nix.image.rootfs import UnpackError, extract


@dataclass(frozen=True)
class Layer:
    """One layer: the digest and the size in bytes of its uncompressed tar, the store paths in it, and the absolute paths
    of its other files and links."""

    digest: str
    size: int
    store_paths: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """An image as read. `digest` is the digest of its configuration: what `docker images` calls the image's
    ID."""

    digest: str
    configuration: dict[str, Any]
    layers: tuple[Layer, ...]
    names: tuple[str, ...]

    @property
    def run(self) -> dict[str, Any]:
        """What the image says about running it: Entrypoint, Cmd, Env, User, WorkingDir, Labels."""
        config: dict[str, Any] = self.configuration["config"]
        return config

    @property
    def size(self) -> int:
        """The bytes of all layers, uncompressed."""
        return sum(layer.size for layer in self.layers)


def unpack(source: Path, root: Path | None = None, progress: Callable[[int], None] = lambda count: None) -> Image:
    """Read the image at `source` and lay its layers, one over the other, into the new folder `root`.

    Without `root` the layers are read and checked but not written. File owners are not kept: the files belong
    to who unpacks them. `progress` is told the bytes of each piece that was read. Raises UnpackError.
    """
    if root:
        root.mkdir(parents=True)
    reader = _oci_layout if source.is_dir() else _docker_archive
    with reader(source) as (config, blobs, names):
        configuration = json.loads(config)
        digests = configuration["rootfs"]["diff_ids"]
        layers = []
        for index, blob in enumerate(blobs):
            layer = _layer(_Counting(blob, progress), root.resolve() if root else None)
            if index >= len(digests) or layer.digest != digests[index]:
                raise UnpackError(f"{source}: layer {index} is {layer.digest}, the configuration says otherwise")
            layers.append(layer)
    if len(layers) != len(digests):
        raise UnpackError(f"{source}: {len(layers)} layers, the configuration lists {len(digests)}")
    return Image(f"sha256:{hashlib.sha256(config).hexdigest()}", configuration, tuple(layers), names)


_Parts = tuple[bytes, Iterator[IO[bytes]], tuple[str, ...]]


@contextmanager
def _docker_archive(source: Path) -> Iterator[_Parts]:
    with tarfile.open(source) as archive:

        def member(name: str) -> IO[bytes]:
            found = archive.extractfile(name)
            if not found:
                raise UnpackError(f"{source}: {name} is not a file")
            return found

        (manifest,) = json.loads(member("manifest.json").read())
        config = member(manifest["Config"]).read()
        yield config, map(member, manifest["Layers"]), tuple(manifest.get("RepoTags") or ())


@contextmanager
def _oci_layout(source: Path) -> Iterator[_Parts]:
    def blob(descriptor: dict[str, Any]) -> bytes:
        path = blob_path(descriptor)
        data = path.read_bytes()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
            raise UnpackError(f"{path}: the content has another digest")
        return data

    def blob_path(descriptor: dict[str, Any]) -> Path:
        path = source.joinpath("blobs", *descriptor["digest"].split(":"))
        if path.stat().st_size != descriptor["size"]:
            raise UnpackError(f"{path}: {path.stat().st_size} bytes, the descriptor says {descriptor['size']}")
        return path

    def layers(manifest: dict[str, Any]) -> Iterator[IO[bytes]]:
        for descriptor in manifest["layers"]:
            with blob_path(descriptor).open("rb") as file:
                compressed = descriptor["mediaType"].endswith("+gzip")
                yield gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[misc]

    (entry,) = json.loads((source / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(entry))
    name = entry.get("annotations", {}).get("io.containerd.image.name")
    yield blob(manifest["config"]), layers(manifest), (name,) if name else ()


class Hashing(io.RawIOBase):
    """Passes reads on, hashing and counting what went through."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.sha256.update(data)
        self.size += len(data)
        return data


class _Counting(Hashing):
    def __init__(self, source: IO[bytes], progress: Callable[[int], None]) -> None:
        super().__init__(source)
        self.progress = progress

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.progress(len(data))
        return data


def _layer(stream: _Counting, root: Path | None) -> Layer:
    store_paths, files = set(), set()
    reader = tar.TarReader(stream)
    for member in reader:
        parts = PurePosixPath(member.name.lstrip("/")).parts
        if ".." in parts:
            raise UnpackError(f"the layer's entry {member.name!r} leaves the image")
        if parts[:2] == ("nix", "store") and len(parts) > 2:
            store_paths.add("/" + "/".join(parts[:3]))
        elif member.kind is not tar.MemberKind.FOLDER:
            files.add("/" + "/".join(parts))
        if root:
            extract(member, reader.content(), root)
    return Layer(f"sha256:{stream.sha256.hexdigest()}", stream.size, tuple(sorted(store_paths)), tuple(sorted(files)))
