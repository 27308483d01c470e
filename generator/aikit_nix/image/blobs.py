"""The bytes of an image's layers, as streams, wherever they lie: an OCI layout, a docker-archive, a registry."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.redact import shown
from aikit_nix.http.client import Client, HttpError
from aikit_nix.image import archive, layout
from aikit_nix.image.layout import Image, Layer
from aikit_nix.registry import artifact, reference
from aikit_nix.registry.client import Repository
from aikit_nix.registry.manifest import Manifest, Platform
from aikit_nix.registry.reference import DIGEST

BLOCK = 1 << 20
_SLOWEST = 1 << 16  # bytes in _WINDOW seconds
_WINDOW = 60.0
_LIMIT = 32 << 20  # bytes of a configuration
_GZIP = zlib.MAX_WBITS | 16

Blocks = Iterator[bytes]


@dataclass(frozen=True)
class Opened:
    """An image and its layers' bytes: `blocks` gives those of a layer as they are stored, None where they are not here.

    Its iterator raises AikitError where they cannot be read to their end. `said` gives what a registry has beside the
    image, of a media type and of at most so many bytes each.
    """

    image: Image
    where: str
    blocks: Callable[[int], Blocks | None]
    said: Callable[[str, int], Iterable[bytes]] = lambda _type, _limit: ()


@contextmanager
def opened(
    target: str, client: Client, *, insecure: bool | None = None, architecture: str | None = None
) -> Iterator[Opened]:
    """The image at a folder, a file, or a reference in a registry; of an index the one for `architecture`. Raises AikitError."""
    path = Path(target)
    if layout.is_layout(path):
        yield _of_layout(path)
    elif path.is_file():
        with archive.opened(path) as found:
            yield Opened(found.image, target, found.blocks)
    elif path.exists():
        raise error(f"{target} is no image: an OCI layout is a folder with an index.json in it", code="image")
    else:
        yield _of_registry(target, client, insecure, architecture)


def gunzipped(blocks: Blocks) -> Blocks:
    """What a stream of gzip unpacks to, also one of several members (as eStargz has them). Raises ValueError."""
    state = zlib.decompressobj(wbits=_GZIP)
    try:
        for block in blocks:
            left = block
            while left:
                if state.eof:
                    state = zlib.decompressobj(wbits=_GZIP)
                yield state.decompress(left, BLOCK)
                left = state.unused_data if state.eof else state.unconsumed_tail
        yield state.flush()
    except zlib.error as bad:
        raise ValueError(f"is packed badly ({bad})") from None
    if not state.eof:
        raise ValueError("is packed badly (it ends too early)")


def _of_layout(folder: Path) -> Opened:
    image = layout.read_layout(folder)

    def blocks(index: int) -> Blocks | None:
        layer = image.layers[index]
        file = layout.blob_path(folder, layer.digest)
        # A byte more tells of one that is too long
        return files.read_part(file, 0, layer.size + 1, BLOCK) if file.exists() else None

    return Opened(image, str(folder), blocks)


def _of_registry(target: str, client: Client, insecure: bool | None, architecture: str | None) -> Opened:
    try:
        source = reference.parse(target)
    except AikitError:
        raise error(
            f"{shown(target)} is not there, and no name in a registry: REGISTRY/REPOSITORY:TAG", code="image"
        ) from None
    there = Repository(client, source.registry, source.repository, insecure=insecure)
    manifest = there.manifest(source.reference)
    if manifest.is_index:
        manifest = there.manifest(chosen(manifest, target, architecture))
    config = str(manifest.said.config.digest) if manifest.said.config else ""
    if not DIGEST.fullmatch(config):
        raise error(f"{target} is no image: its manifest has no configuration", code="image")
    image = layout.make(manifest.data, there.blob(config, _LIMIT), [source.name], target)

    def blocks(index: int) -> Blocks:
        return _of_blob(there, image.layers[index])

    return Opened(image, target, blocks, partial(artifact.said, there, manifest.digest))


def chosen(index: Manifest, where: str, architecture: str | None) -> str:
    """The digest of an index's image for an architecture, of which it has one. Raises AikitError."""
    listed = index.said.manifests or ()
    with layout.refusing(where):
        if index.content.keys() & {"config", "layers"}:
            raise ValueError("it is an index and a manifest in one")
        entries: list[Mapping[str, Any]] = index.content["manifests"] if listed else []
        layout.require_exact((index.content, *entries, *(each.get("platform") or {} for each in entries)))
    linux = (each for each in listed if each.platform and each.platform.os.lower() in ("", "linux"))
    found = [(_architecture(each.platform), str(each.digest)) for each in linux if each.platform]
    architectures = [each for each, _ in found]
    if len(set(architectures)) == 1:
        architecture = architectures[0]
    if architectures.count(architecture or "") > 1:
        raise error(f"{where} has more than one image for {architecture}, of which each program may take another")
    digest = dict(found).get(architecture or "", "")
    if not DIGEST.fullmatch(digest):
        raise error(f"{where} has images for {', '.join(sorted(architectures)) or 'nothing'}, none for {architecture}")
    return digest


def _architecture(platform: Platform) -> str:
    """OCI's name of an architecture, by whatever name containerd and docker take for it.

    Source: containerd's platforms, normalizeArch; no operating system is its own there.
    """
    name = platform.architecture.lower()
    return {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}.get(name, name)


def _of_blob(there: Repository, layer: Layer) -> Blocks:
    path = f"blobs/{layer.digest}"
    there.login()
    try:
        with there.client.stream(there.url(path), headers=there.headers()) as stream:
            yield from stream.blocks(_SLOWEST, _WINDOW)
    except HttpError as refused:
        raise there.refused(refused, path) from None
