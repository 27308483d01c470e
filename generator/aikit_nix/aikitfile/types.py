"""What an aikitfile says: frozen dataclasses that remember where each value stood. parser.py makes them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from enum import StrEnum

from aikit_nix.base.errors import Located, Position
from aikit_nix.base.targets import Runtime
from aikit_nix.base.typed_json import Digest, Size
from aikit_nix.sources import MODELS, Local, Source, several
from aikit_nix.sources.gguf import Facts

__all__ = ["Aikitfile", "Backend", "LayerPin", "Located", "Model", "Pin", "PromptTemplate", "Runtime"]


class Backend(StrEnum):
    """An inference backend besides llama-cpp, which is always there."""

    STABLEDIFFUSION = "stablediffusion"
    EXLLAMA = "exllama"
    EXLLAMA2 = "exllama2"

    @property
    def built(self) -> Backend:
        """The backend that is built for it: ExLlamaV2 loads the models that ExLlama loaded."""
        return Backend.EXLLAMA2 if self is Backend.EXLLAMA else self


@dataclass(frozen=True)
class PromptTemplate:
    """A file `/models/<name>.tmpl`; the text is final."""

    name: Located[str]
    template: Located[str]

    @property
    def path(self) -> str:
        """Where the template lies in the image."""
        return posixpath.normpath(f"{MODELS}/{self.name.value}.tmpl")


@dataclass(frozen=True)
class LayerPin:
    """A layer of the image: the digest (`sha256:…`) and the size in bytes of its uncompressed tar."""

    digest: Digest
    size: Size


@dataclass(frozen=True)
class Pin:
    """What is known of a model file's bytes. `sha256` and `blake3` are hex, `size` counts bytes.

    `url` is where they are, at a fixed revision; None for a local file. `private` is whether only a user with the right
    to it can fetch it, or nobody but `aikit-nix fetch` (a registry's blob): Nix then takes it from the store. `member` is
    its name in the archive that `url` gives, if it gives one. `gguf` is what its header says, once that was seen. `as_is`
    is whether the user means the file though it is not what its name says.
    """

    sha256: str
    size: int | None = None
    blake3: str | None = None
    layer: LayerPin | None = None
    url: str | None = None
    private: bool = False
    member: str | None = None
    gguf: Facts | None = None
    as_is: bool = False


@dataclass(frozen=True)
class Model:
    """A model's file, which lands on `path` in the image.

    A source of several files is one Model whose `path` is their folder, until the lock is applied: then each file is one.
    `sha256` is what the aikitfile says, 64 lower-case hex digits; `pin` what it and the lock say together.
    """

    at: Position
    name: Located[str]
    source: Located[Source]
    sha256: Located[str] | None
    prompt_templates: tuple[PromptTemplate, ...]
    path: str
    pin: Pin | None = None

    @property
    def is_several(self) -> bool:
        """Whether this stands for files that only the lock names, and it has not been applied."""
        return self.pin is None and several(self.source.value)

    @property
    def is_locked(self) -> bool:
        """Whether the lock has it: a sha256 in the aikitfile alone says nothing of the size."""
        return self.pin is not None and self.pin.size is not None

    @property
    def is_local(self) -> bool:
        """Whether it lies beside the aikitfile."""
        return isinstance(self.source.value, Local)


@dataclass(frozen=True)
class Aikitfile:
    """A valid aikitfile. `data` are its bytes; `config` is the final text of /config.yaml."""

    file: str
    data: bytes
    debug: bool
    runtime: Located[Runtime] | None
    backends: tuple[Located[Backend], ...]
    models: tuple[Model, ...]
    config: Located[str] | None
    load_to_memory: tuple[Located[str], ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the file's bytes."""
        import hashlib  # OpenSSL takes its time to load

        return hashlib.sha256(self.data).hexdigest()
