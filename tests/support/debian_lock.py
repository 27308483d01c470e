"""A lock of Debian packages that can still be downloaded: mirrors drop a version soon after the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aikit_nix import debian
from aikit_nix.errors import AikitError


def usable(folder: Path, say: Callable[[str], None]) -> Path | None:
    """None when the project's own lock will do, else one of today's versions, written into `folder`.

    Says what it does. Where no mirror answers there is nothing to renew from: Nix may have the files already.
    """
    try:
        mirrors = debian.mirrors()
        gone = debian.missing(debian.Lock.read(debian.LOCK), mirrors)
        if not gone:
            return None
        names = ", ".join(package.name for package in gone[:4]) + (", …" if len(gone) > 4 else "")
        say(f"{len(gone)} of the pinned Debian packages ({names}) are in neither the mirror nor the archive")
        lock, _ = debian.renew(mirrors[0])
    except AikitError as problem:
        say(f"the pinned Debian packages are kept: {problem}")
        return None
    say(f"going on with the versions of {lock.date}: the digests will be others than the pinned ones'")
    path = folder / "debian-lock.json"
    lock.write(path)
    return path
