"""A bundle, as `aikit-nix bundle` writes it: its parts, and a small one of some files that needs no build."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aikit_nix.flakes import bundle
from aikit_nix.flakes.bundle import Index, Item, Kind
from aikit_nix.nix import command as nix
from aikit_nix.nix import store


@dataclass(frozen=True)
class Bundle:
    """The folder of a bundle."""

    folder: Path

    @property
    def index(self) -> list[dict[str, str]]:
        paths: list[dict[str, str]] = json.loads((self.folder / "bundle.json").read_text())["paths"]
        return paths

    def path(self, name: str) -> str:
        """A store path of the bundle, by its name."""
        (found,) = [item["path"] for item in self.index if item["path"].endswith("-" + name)]
        return str(found)

    def nar(self, name: str) -> str:
        """The file of a binary cache that has the bytes of a store path, below the bundle."""
        text = (self.folder / self.narinfo(name)).read_text()
        return re.search("^URL: (.*)$", text, re.MULTILINE)[1]  # type: ignore[index]

    def narinfo(self, name: str) -> str:
        return Path(self.path(name)).name[:32] + ".narinfo"


def make(folder: Path, models: Mapping[str, bytes], flake: Mapping[str, bytes]) -> Bundle:
    """Bundle models, by their names in the store, and the files of what need not be a flake."""
    folder.mkdir()
    paths = []
    for name, data in models.items():
        (folder / "file").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        store.add(folder / "file", name, digest)
        paths.append(str(store.store_path(name, digest)))
    (folder / "file").unlink()
    items = [Item(path, Kind.MODEL, *said) for path, said in zip(paths, nix.sizes(paths), strict=True)]
    bundle.copy(items, f"file://{folder}")
    items = [replace(item, narInfo=bundle.described(folder / item.narinfo)) for item in items]
    for name, data in flake.items():
        (folder / "flake" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "flake" / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in flake.items()}
    (folder / "bundle.json").write_bytes(Index("image:tag", "x86_64-linux", tuple(items), digests).to_json())
    return Bundle(folder)
