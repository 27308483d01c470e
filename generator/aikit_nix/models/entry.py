"""An entry of aikit.lock: what a model of the aikitfile is, as types and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from msgspec import Struct, field, structs

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base import console
from aikit_nix.base.typed_json import Sha256, Size, form
from aikit_nix.sources import MODELS, RefusedError, http
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.names import relative_path

Text: TypeAlias = Annotated[
    str, form(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", "no text that can be printed")
]


class Origin(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What the place that a model comes from says about itself, for people and bills of materials.

    `revision` is a commit or a digest. `base_models` are Hugging Face repositories.
    """

    kind: Text
    repository: Text | None = None
    revision: Text | None = None
    license: Text | None = None
    base_models: tuple[Text, ...] = ()


class File(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A file of an entry as the lock has it: its path in the image, and its pin (aikitfile/types.py says what is what)."""

    path: Text
    url: Text | None = None
    private: bool = False
    member: Text | None = None
    size: Size
    sha256: Sha256
    blake3: Sha256 | None = None
    layer: LayerPin | None = None
    gguf: Facts | None = None
    as_is: bool = False

    def __post_init__(self) -> None:
        try:
            if not self.path.startswith(f"{MODELS}/"):
                raise RefusedError("is not below /models")
            relative_path(self.path.removeprefix(f"{MODELS}/"))
        except RefusedError as bad:
            raise ValueError(f"{self.path!r} {bad}") from None
        if self.url is not None:
            if not self.url.startswith(("http://", "https://")):
                raise ValueError(f"{self.url!r} is no URL")
            http.clean(self.url)

    @classmethod
    def of(cls, path: str, pin: Pin) -> File:
        """A file as the lock is to have it."""
        return cls(path=path, **vars(pin))

    def pinned(self) -> tuple[str, Pin]:
        """Its path and its pin, without a layer by an older version of the rule."""
        from aikit_nix.models.layer import layer_size

        known = structs.asdict(self)
        if self.layer and self.layer.size != layer_size(self.path, self.size):
            known["layer"] = None
        return known.pop("path"), Pin(**known)


class Entry(Struct, frozen=True):
    """One model of the aikitfile: its name and source as written, and its files."""

    name: Text
    source: Text
    origin: Origin = Origin("unknown")
    listed: tuple[File, ...] = field(default=(), name="files")

    def __post_init__(self) -> None:
        if not self.listed:
            raise ValueError(f"the model {self.name!r} has no files")

    @classmethod
    def of(cls, name: str, source: str, origin: Origin, files: Iterable[tuple[str, Pin]]) -> Entry:
        """An entry of files as (path in the image, pin)."""
        return cls(name, source, origin, tuple(File.of(*each) for each in files))

    @property
    def files(self) -> tuple[tuple[str, Pin], ...]:
        """The files, as (path in the image, pin)."""
        return tuple(file.pinned() for file in self.listed)

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.source

    @property
    def is_as_is(self) -> bool:
        """Whether the user means its files though one is not what its name says."""
        return any(file.as_is for file in self.listed)

    def summary(self) -> str:
        """A few words for people: digest or number of files, size, origin."""
        size = sum(file.size or 0 for file in self.listed)
        what = f"sha256 {self.listed[0].sha256[:12]}…" if len(self.listed) == 1 else f"{len(self.listed)} files"
        revision = f" at {self.origin.revision.removeprefix('sha256:')[:12]}" if self.origin.revision else ""
        return f"{what}, {console.size(size)}, {self.origin.kind}{revision}"
