"""What was chosen for a flake, kept in its aikit/choices.json: the next `gen` keeps to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.aikitfile.types import Runtime
from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, error
from aikit_nix.flakes.plan import Engine, Options, Packages

FILE = "aikit/choices.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Choices:
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
        merged = {
            field.name: getattr(earlier, field.name) if getattr(self, field.name) is None else getattr(self, field.name)
            for field in fields(Choices)
        }
        if self.packages and self.packages != (earlier.packages or Packages.NIXPKGS):
            for name in ("engine", "nixpkgs", "debian_lock"):
                merged[name] = getattr(self, name)
        return Choices(**merged)

    def options(self) -> Options:
        """The plan's options."""
        return Options(
            runtime=Runtime(self.runtime) if self.runtime else None,
            engine=Engine(self.engine) if self.engine else None,
            packages=Packages(self.packages) if self.packages else Packages.NIXPKGS,
            name=self.name,
            tag=self.tag,
            cuda_capabilities=self.cuda_capabilities or (),
            drop_settings=bool(self.drop_settings),
        )

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
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    def to_json(self) -> str:
        """The same choices give the same bytes."""
        return json.dumps(self._given(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


_OPTIONS = {"cuda_capabilities": "--cuda-capability", "drop_settings": "--drop-settings"}


def read(folder: Path) -> Choices:
    """What was chosen for the flake in a folder; nothing where there is none. Raises AikitError where that is unreadable."""
    path = folder / FILE
    if not path.exists():
        return Choices()
    mend = "put it back from version control, or give `gen` its options anew with --forget"
    try:
        content = json.loads(files.read_bounded(path, _MAX_BYTES))
        for name, value in content.items():
            _check(name, value)
        if "cuda_capabilities" in content:
            content["cuda_capabilities"] = tuple(content["cuda_capabilities"])
        choices = Choices(**content)
        choices.options()
        _ = choices.read_as
    except AikitError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as bad:
        raise error(f"{path} holds no choices ({' '.join(str(bad).split())[:200]}): {mend}", code="choices") from None
    return choices


def _check(name: str, value: Any) -> None:
    """Raises ValueError for what `to_json` never writes: nobody looks at the types again."""
    if name not in {field.name for field in fields(Choices)}:
        raise ValueError(f"{name!r} is not known here")
    if name == "cuda_capabilities":
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
    else:
        fits = isinstance(value, bool if name in ("debian_lock", "drop_settings") else str)
    if not fits:
        raise ValueError(f"{name} has a value of another type")
