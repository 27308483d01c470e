"""A model's file at its origin, and what is known of it once its bytes were seen."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aikit_nix.aikitfile.types import Layer, Model, Pin

if TYPE_CHECKING:
    from aikit_nix.base.hashing import Digests, Frame


Pins = tuple[tuple[str, Pin], ...]  # path in the image, pin


@dataclass(frozen=True)
class Remote:
    """A model's file at its origin: where it lands in the image, and what is known of it before its bytes are seen.

    `private` is whether Nix cannot fetch it by itself. `is_archive` is whether the URL gives a tar that holds the files:
    `sha256` and `size` are then the tar's, and `path` is of no meaning. `is_gguf` is whether its header says something of use.
    """

    model: Model
    path: str
    url: str
    size: int | None
    sha256: str | None
    private: bool = False
    is_archive: bool = False
    is_gguf: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages and in the Nix store."""
        return posixpath.basename(self.path)

    @property
    def key(self) -> str:
        """A name for what is kept of it in the folder of downloads."""
        return key_of(self.url, self.sha256, self.path)


def key_of(url: str, sha256: str | None, path: str) -> str:
    """`Remote.key` for an address, a hash and a path in the image."""
    return hashlib.sha256(f"{url} {sha256} {path}".encode()).hexdigest()[:32]


def pin_of(remote: Remote, digests: Digests) -> Pin:
    """What is known of a file whose bytes were seen."""
    return Pin(digests.sha256, digests.size, digests.blake3, layer_of(remote.path, digests), remote.url, remote.private)


def layer_of(path: str, digests: Digests) -> Layer | None:
    """The layer that a file becomes, where its digest was computed."""
    from aikit_nix.models import layer

    return Layer(f"sha256:{digests.layer}", layer.layer_size(path, digests.size)) if digests.layer else None


def frame_of(path: str) -> Callable[[int], Frame]:
    """For a size: what stands around the content in the layer that the file becomes."""
    from aikit_nix.base.hashing import Frame
    from aikit_nix.models import layer

    return lambda size: Frame(layer.header(path, size), layer.trailer(size))
