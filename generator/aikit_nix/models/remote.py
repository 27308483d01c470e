"""A model's file at its origin, and what is known of it once its bytes were seen."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aikit_nix.aikitfile.types import LayerPin, Model, Pin
from aikit_nix.base import console
from aikit_nix.base.errors import Diagnostic, Severity, error
from aikit_nix.sources.judge import OddError, UnfitError
from aikit_nix.sources.names import first_shard

if TYPE_CHECKING:
    from aikit_nix.base.hashing import Digests, Frame
    from aikit_nix.sources.gguf import Facts, Header


Pins = tuple[tuple[str, Pin], ...]  # path in the image, pin


@dataclass(frozen=True)
class Remote:
    """A model's file at its origin: where it lands in the image, and what is known of it before its bytes are seen.

    `private` is whether Nix cannot fetch it by itself. `is_archive` is whether the URL gives a tar that holds the files:
    `sha256` and `size` are then the tar's, and `path` is of no meaning. `is_gguf` is whether it should be a GGUF, `as_is`
    whether the user means it whatever it is.
    """

    model: Model
    path: str
    url: str
    size: int | None
    sha256: str | None
    private: bool = False
    is_archive: bool = False
    is_gguf: bool = False
    as_is: bool = False

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
    layer = layer_of(remote.path, digests)
    return Pin(digests.sha256, digests.size, digests.blake3, layer, remote.url, remote.private, as_is=remote.as_is)


def judged(
    model: Model,
    name: str,
    look: Callable[[], Header | None],
    *,
    as_is: bool = False,
    report: Callable[[list[Diagnostic]], object] = console.report,
) -> Facts | None:
    """What a model's file called `name` says of itself; None for a later shard, and for what is no GGUF.

    Raises AikitError where `look` says that it is something else, unless that is meant; of what nobody knows it warns.
    """
    try:
        header = look()
    except UnfitError as unfit:
        if as_is:
            return None
        if isinstance(unfit, OddError):
            problem = f"`{model.name.value}`: {name} {unfit}: is it complete?"
            report([Diagnostic(Severity.WARNING, "not-gguf", problem, model.source.at)])
            return None
        mend = f"if it is meant as it is, pin it with `aikit-nix lock --as-is {shlex.quote(model.name.value)}`"
        raise error(f"`{model.name.value}`: {name} {unfit}; {mend}", model.source.at, "not-gguf") from None
    return header.facts if header and first_shard(name) == name else None


def layer_of(path: str, digests: Digests) -> LayerPin | None:
    """The layer that a file becomes, where its digest was computed."""
    from aikit_nix.models import layer

    return LayerPin(f"sha256:{digests.layer}", layer.layer_size(path, digests.size)) if digests.layer else None


def frame_of(path: str) -> Callable[[int], Frame]:
    """For a size: what stands around the content in the layer that the file becomes."""
    from aikit_nix.base.hashing import Frame
    from aikit_nix.models import layer

    return lambda size: Frame(layer.header(path, size), layer.trailer(size))
