"""A docker-archive (`docker save`, a flake's `archive`): its image, and where in it the layers' bytes lie."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from msgspec import Struct

from aikit_nix.base import console, files, tar, typed_json
from aikit_nix.base.errors import error
from aikit_nix.base.tar import Member, MemberKind
from aikit_nix.image import layout
from aikit_nix.image.layout import Image, Listed
from aikit_nix.registry.reference import digest_of

_BLOCK = 1 << 20


@dataclass(frozen=True)
class DockerArchive:
    """The one image of an open docker-archive."""

    image: Image
    layers: tuple[Member, ...]
    file: Path
    stream: IO[bytes]

    def blocks(self, index: int) -> Iterator[bytes]:
        """The bytes of a layer; several may be read side by side. Raises AikitError."""
        at, end = self.layers[index].start, self.layers[index].start + self.layers[index].size
        try:
            while at < end and (block := os.pread(self.stream.fileno(), min(_BLOCK, end - at), at)):
                at += len(block)
                yield block
        except OSError as failed:
            raise error(f"cannot read {self.file}: {files.reason(failed)}", code="unreadable") from None


class _Listed(Struct, rename="pascal", forbid_unknown_fields=True):
    """An image of the archive's manifest.json."""

    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None
    parent: Any = None
    layer_sources: Any = None


@contextmanager
def opened(file: Path) -> Iterator[DockerArchive]:
    """The archive, packed with gzip or not at all; a packed one is unpacked once. Raises AikitError."""
    with _stream(file) as stream:
        try:
            with layout.refusing(str(file)):
                members = {tar.place(each.name): each for each in tar.TarReader(stream, seeks=True)}
                found = _read(file, stream, members)
        except OSError as failed:
            raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None
        yield found


@contextmanager
def _stream(file: Path) -> Iterator[IO[bytes]]:
    try:
        with files.open_regular(file) as stream, layout.refusing(str(file)):
            if (packed := tar.unpacked(stream)) is stream:
                yield stream
                return
            most = tar.most_unpacked(file.stat().st_size)
            with TemporaryFile() as plain:
                for block in tar.blocks(packed):
                    most -= plain.write(block)
                    if most < 0:
                        raise ValueError("it unpacks to far more than any image")
                plain.seek(0)
                yield plain
    except OSError as failed:
        raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None


def _read(file: Path, stream: IO[bytes], members: Mapping[str, Member]) -> DockerArchive:
    """Raises ValueError where it holds no image that every reader finds."""

    def content(name: str) -> bytes:
        member = _followed(members, name)
        if member.size > layout.LIMIT:
            raise ValueError(f"{name} has {console.size(member.size)}")
        return os.pread(stream.fileno(), member.size, member.start)

    for name, member in members.items():
        if member.link:  # to a folder, what lies below it would be what lies there
            _followed(members, name)
    images = typed_json.decode(content("manifest.json"), tuple[_Listed, ...])
    if len(images) != 1:
        raise error(f"{file} holds {len(images)} images, and one is expected", code="image")
    config = content(images[0].config)
    layers = tuple(_followed(members, name) for name in images[0].layers)
    described = layout.configuration(config)
    listed = [
        Listed(digest=digest, size=layer.size, media_type=layout.LAYER)
        for digest, layer in zip(described.rootfs.diff_ids, layers, strict=True)
    ]
    said, found = typed_json.parse(config), described.layers(listed)
    names = images[0].repo_tags or ()
    if "index.json" in members:  # docker's newer ones are an OCI layout too, which others read first
        also = layout.read_from(content, str(file))
        if also.config_digest != digest_of(config) or not all(
            each.digest == each.diff_id or _followed(members, layout.blob_name(each.digest)) == layer
            for each, layer in zip(also.layers, layers, strict=True)
        ):
            raise ValueError("its index.json and its manifest.json are about two images")
        names += tuple(name for name in also.names if layout.short(name) not in map(layout.short, names))
    image = Image(b"", None, digest_of(config), len(config), said, found, names)
    return DockerArchive(image, layers, file, stream)


def _followed(members: Mapping[str, Member], name: str) -> Member:
    member = members.get(tar.place(name))
    if member and member.kind is MemberKind.LINK:  # docker save links equal layers to each other
        member = members.get(tar.place(posixpath.join(posixpath.dirname(name), member.link)))
    elif member and member.kind is MemberKind.HARD_LINK:
        member = members.get(tar.place(member.link))
    if member is None or member.kind is not MemberKind.FILE:
        raise ValueError(f"{name} is no file")
    return member
