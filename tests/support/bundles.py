"""A bundle, as `aikit-nix bundle` writes it: its parts, and a small one of some files that needs no build."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.flakes import bundle
from aikit_nix.flakes.bundle import Index, Item, PathKind
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
    items = [Item(path, PathKind.MODEL, *said) for path, said in zip(paths, nix.sizes(paths), strict=True)]
    bundle.copy(items, f"file://{folder}")
    for name, data in flake.items():
        (folder / "flake" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "flake" / name).write_bytes(data)
    (folder / "bundle.json").write_bytes(Index("image:tag", "x86_64-linux", tuple(items), {}).to_json())
    reindex(Bundle(folder))
    return Bundle(folder)


def key(folder: Path) -> tuple[Path, str]:
    """A new key of Nix: the file of its secret half, and its public half."""
    secret = subprocess.run(["nix", "key", "generate-secret", "--key-name", "ci-1"], capture_output=True, check=True)
    (folder / "secret").write_bytes(secret.stdout)
    argv = ["nix", "key", "convert-secret-to-public"]
    public = subprocess.run(argv, input=secret.stdout, capture_output=True, check=True)
    return folder / "secret", public.stdout.decode().strip()


def forge(bundle: Bundle, name: str, data: bytes, change: Callable[[str], str] = lambda text: text) -> None:
    """Give a file of the bundle other bytes, so that NAR, description and index agree; `change` edits the description."""
    narinfo = bundle.folder / bundle.narinfo(name)
    text = narinfo.read_text()
    nar = nar_of(data)
    now = f"sha256:{store.base32(hashlib.sha256(nar).digest())}"
    to = f"nar/{now.removeprefix('sha256:')}.nar"
    (bundle.folder / to).write_bytes(nar)
    for field, value in {"URL": to, "FileHash": now, "NarHash": now, "FileSize": len(nar), "NarSize": len(nar)}.items():
        text = re.sub(f"^{field}: .*$", f"{field}: {value}", text, flags=re.MULTILINE)
    narinfo.unlink()
    narinfo.write_text(change(text))

    def edit(index: Any) -> None:
        item = next(item for item in index["paths"] if item["path"].endswith("-" + name))
        item |= {"narHash": now, "narSize": len(nar)}

    reindex(bundle, edit)


def reindex(bundle: Bundle, change: Callable[[Any], object] = lambda _: None) -> None:
    """Write the index anew, with the hashes that the bundle's files have now; `change` edits it before."""
    file = bundle.folder / "bundle.json"
    index = json.loads(file.read_text())
    change(index)
    index["files"] = {
        str(path.relative_to(bundle.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(bundle.folder.rglob("*"))
        if path.is_file() and not path.name.startswith("bundle.json")
    }
    file.unlink()
    file.write_text(json.dumps(index))


def nar_of(data: bytes) -> bytes:
    """A file as Nix' archive format has it (Nix manual, "Nix Archive (NAR) Format")."""

    def text(value: bytes) -> bytes:
        return len(value).to_bytes(8, "little") + value + bytes(-len(value) % 8)

    return b"".join(map(text, [b"nix-archive-1", b"(", b"type", b"regular", b"contents", data, b")"]))
