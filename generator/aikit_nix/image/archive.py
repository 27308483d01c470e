"""A docker-archive (`docker save`, a flake's `archive`): its image, and where in it the layers' bytes lie."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from aikit_nix.base import console, files, strict_json, tar
from aikit_nix.base.errors import error
from aikit_nix.base.tar import Member, MemberKind
from aikit_nix.image import layout
from aikit_nix.image.layout import Image

_BLOCK = 1 << 20
# Weights hardly shrink: what unpacks to more than this is a bomb.
_FREE_BYTES = 64 << 20
_MOST_TIMES = 20


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


@contextmanager
def opened(file: Path) -> Iterator[DockerArchive]:
    """The archive, packed with gzip or not at all; a packed one is unpacked once. Raises AikitError."""
    with _stream(file) as stream:
        try:
            members = {posixpath.normpath(each.name): each for each in tar.TarReader(stream, seeks=True)}
            found = _read(file, stream, members)
        except OSError as failed:
            raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None
        except (ValueError, KeyError, TypeError, AttributeError) as bad:
            raise layout.no_image(str(file), bad) from None
        yield found


@contextmanager
def _stream(file: Path) -> Iterator[IO[bytes]]:
    try:
        with files.open_regular(file) as stream:
            if (packed := tar.unpacked(stream)) is stream:
                yield stream
                return
            most = _FREE_BYTES + _MOST_TIMES * file.stat().st_size
            with TemporaryFile() as plain:
                for block in tar.blocks(packed):
                    most -= plain.write(block)
                    if most < 0:
                        raise ValueError("it unpacks to far more than any image")
                plain.seek(0)
                yield plain
    except OSError as failed:
        raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None
    except ValueError as bad:
        raise layout.no_image(str(file), bad) from None


def _read(file: Path, stream: IO[bytes], members: Mapping[str, Member]) -> DockerArchive:
    """Raises ValueError, KeyError and others where it holds no image that every reader finds."""

    def content(name: str) -> bytes:
        member = _followed(members, name)
        if member.size > layout.LIMIT:
            raise ValueError(f"{name} has {console.size(member.size)}")
        return os.pread(stream.fileno(), member.size, member.start)

    images = strict_json.parse(content("manifest.json"))
    if len(images) != 1:
        raise error(f"{file} holds {len(images)} images, and one is expected", code="image")
    if unknown := images[0].keys() - layout.ARCHIVE_KEYS:
        raise ValueError(f"its manifest.json says {min(unknown)[:80]!r}, which means nothing")
    config = content(images[0]["Config"])
    layers = tuple(_followed(members, name) for name in images[0]["Layers"])
    diff_ids = strict_json.parse(config)["rootfs"]["diff_ids"]
    listed = [
        {"digest": digest, "size": layer.size, "mediaType": layout.LAYER}
        for digest, layer in zip(diff_ids, layers, strict=True)
    ]
    described, found = layout.configuration(config, listed)
    names = tuple(str(name) for name in images[0].get("RepoTags") or ())
    image = Image(b"", None, layout.digest_of(config), len(config), described, found, names)
    if "index.json" in members:  # docker's newer ones are an OCI layout too, which others read first
        also = layout.read_from(content, str(file))
        if (also.config_digest, also.diff_ids) != (image.config_digest, image.diff_ids):
            raise ValueError("its index.json and its manifest.json are about two images")
    return DockerArchive(image, layers, file, stream)


def _followed(members: Mapping[str, Member], name: str) -> Member:
    member = members[posixpath.normpath(name)]
    if member.kind is MemberKind.LINK:  # docker save links equal layers to each other
        member = members[posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))]
    elif member.kind is MemberKind.HARD_LINK:
        member = members[posixpath.normpath(member.link)]
    if member.kind is not MemberKind.FILE:
        raise ValueError(f"{name} is no file")
    return member
