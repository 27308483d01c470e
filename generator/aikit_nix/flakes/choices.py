"""What was chosen for a flake, kept in its aikit/choices.json: the next `gen` keeps to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.base import files, typed_json
from aikit_nix.flakes.plan import Options, Packages

FILE = "aikit/choices.json"
_MAX_BYTES = 1 << 20


class Choices(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options of `gen`, as they were given; None for what was not."""

    packages: str | None = None
    engine: str | None = None
    runtime: str | None = None
    name: str | None = None
    tag: str | None = None
    cuda_capabilities: tuple[str, ...] | None = None
    escapes: str | None = None
    drop_settings: bool | None = None
    nixpkgs: str | None = None
    input: str | None = None
    debian_lock: bool | None = None  # whether the flake's own lock of Debian packages is another than the shipped one

    def over(self, earlier: Choices) -> Choices:
        """These choices, and where nothing was chosen the earlier ones.

        What only fits the earlier package set goes with it.
        """
        merged = structs.asdict(earlier)
        merged |= {name: value for name, value in structs.asdict(self).items() if value is not None}
        if self.packages and self.packages != (earlier.packages or Packages.NIXPKGS):
            for name in ("engine", "nixpkgs", "debian_lock", "cuda_capabilities"):
                merged[name] = getattr(self, name)
        return Choices(**merged)

    def options(self) -> Options:
        """The plan's options. Raises ValueError for a runtime, an engine or packages that there are not."""
        return typed_json.convert(self._given(), Options)

    @property
    def read_as(self) -> Escapes:
        """How AIKit's shell escapes are read."""
        return Escapes(self.escapes) if self.escapes else Escapes.AUTO

    def words(self) -> list[str]:
        """The choices as options of the command line."""
        words: list[str] = []
        for name, value in self._given().items():
            if name == "drop_settings":
                words += [_OPTIONS[name]] if value else []
            elif name != "debian_lock":
                values = value if isinstance(value, tuple | list) else (value,)
                words += [word for each in values for word in (_OPTIONS.get(name, f"--{name}"), str(each))]
        return words

    def _given(self) -> Mapping[str, Any]:
        return {name: value for name, value in structs.asdict(self).items() if value not in (None, ())}

    def to_json(self) -> str:
        """The same choices give the same bytes."""
        return typed_json.encode(self._given(), is_sorted=True)


_OPTIONS = {"cuda_capabilities": "--cuda-capability", "drop_settings": "--drop-settings"}


def read(folder: Path) -> Choices:
    """What was chosen for the flake in a folder; nothing where there is none. Raises AikitError where that is unreadable."""
    path = folder / FILE
    if not path.exists():
        return Choices()
    mend = "put it back from version control, or give `gen` its options anew with --forget"
    with typed_json.refusing(f"{path} holds no choices", mend, "choices"):
        found = typed_json.decode(files.read_bounded(path, _MAX_BYTES), Choices)
        _ = found.options(), found.read_as
    return found
