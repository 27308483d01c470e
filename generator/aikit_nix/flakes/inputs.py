"""A generated flake is built, and what it downloads for that is brought: Debian's packages by our own means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aikit_nix.base import files, process
from aikit_nix.debian import mirror
from aikit_nix.debian.lock import SNAPSHOT, DebianLock
from aikit_nix.flakes import folder as folders
from aikit_nix.flakes.write import DEBIAN_LOCK
from aikit_nix.nix import command as nix


def build(folder: Path, attribute: str, *, out_link: Path | None = None) -> Path:
    """The store path of one of the packages of a folder's flake, built if it is not there. Raises AikitError."""
    with folders.staged(folder) as flake:
        if (folder / DEBIAN_LOCK).is_file() and nix.invalid([nix.evaluate(flake, attribute)]):
            outputs = nix.fixed_outputs(nix.evaluate(flake, f"{attribute}.drvPath"))
            _bring_debs(folder, nix.invalid(outputs))
        return nix.build(flake, attribute, out_link=out_link)


def bring(folder: Path) -> int:
    """Bring all that a folder's flake downloads for its default image; the number of what was not there. Raises AikitError."""
    with folders.staged(folder) as flake:
        return realise(folder, nix.fixed_outputs(nix.evaluate(flake, "default.drvPath")))


def realise(folder: Path, outputs: Mapping[str, str]) -> int:
    """Bring outputs whose hash is known into the store, each with its derivation; the number of what was not there.

    Debian's packages by our own means, from this machine's mirrors: Nix knows only the archive behind them. The rest by Nix's.
    Raises AikitError.
    """
    missing = nix.invalid(outputs)
    for some in nix.chunks([outputs[path] for path in _bring_debs(folder, missing)]):
        process.run(["nix-store", "--realise", *some])
    return len(missing)


def _bring_debs(folder: Path, missing: list[str]) -> list[str]:
    """Bring those of the missing store paths that are .debs of the flake's own lock; gives the others."""
    from aikit_nix.debian import archive

    if missing and (folder / DEBIAN_LOCK).is_file():
        lock = DebianLock.read(folder / DEBIAN_LOCK)
        debs = {str(package.store_path): package for package in lock.packages()}
        places = [*mirror.known(), f"{SNAPSHOT}/{lock.snapshot}"]
        archive.bring(places, [debs[path] for path in missing if path in debs], files.cache_folder() / "downloads")
        return [path for path in missing if path not in debs]
    return missing
