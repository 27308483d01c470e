"""A lock of Debian packages that can still be downloaded: mirrors drop a version soon after the next one."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from aikit_nix.base.errors import AikitError
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.debian import archive
from aikit_nix.debian import lock as debian
from aikit_nix.debian import mirror as debian_mirror
from aikit_nix.nix import command
from support.file_server import FileServer


def usable(folder: Path, say: Callable[[str], None], runtime: str | None = "cpu") -> Path | None:
    """None when the project's own lock will do for a runtime's images of this machine's architecture, or for all (None);
    else a lock of today's versions, written into `folder`.

    Says what it does. Where no mirror answers there is nothing to renew from: Nix may have the files already.
    """
    try:
        mirrors = debian_mirror.mirrors()
        lock = debian.DebianLock.read(debian.LOCK)
        own = lock.architectures[ARCHITECTURES[f"{platform.machine()}-linux"]]
        gone = debian.missing(lock, mirrors, {*own.builders(), *own.image(runtime)} if runtime else None)
        if not gone:
            prefetch(lock, mirrors)
            return None
        names = ", ".join(package.name for package in gone[:4]) + (", …" if len(gone) > 4 else "")
        say(f"{len(gone)} of the pinned Debian packages ({names}) are in neither the mirror nor the archive")
        lock, _ = debian.renew(mirrors[0], allow_older=True)
    except AikitError as problem:
        say(f"the pinned Debian packages are kept: {problem}")
        return None
    say(f"going on with the versions of {lock.date}: the image will differ from the pinned one")
    prefetch(lock, mirrors)
    path = folder / "debian-lock.json"
    lock.write(path)
    return path


def prefetch(lock: debian.DebianLock, mirrors: Sequence[str], runtime: str = "cpu") -> None:
    """Put what a runtime's images need, and what builds them, into the store, as `aikit-nix fetch` does.

    Nix by itself knows only Debian's archive, which is slow and not everywhere. What no mirror has is left to it.
    """
    each = lock.architectures.values()
    packages = {package for one in each for package in (*one.builders(), *one.image(runtime))}
    absent = set(command.invalid({str(package.store_path) for package in packages}))
    with contextlib.suppress(AikitError), tempfile.TemporaryDirectory() as scratch:
        archive.bring(mirrors, [package for package in packages if str(package.store_path) in absent], Path(scratch))


def mirror_of_store(server: FileServer) -> dict[str, str]:
    """Let a file server have the .debs that this machine's store has, as a Debian mirror; the environment that names it."""
    lock = debian.DebianLock.read(Path(os.environ.get("AIKIT_DEBIAN_LOCK", debian.LOCK)))
    for architecture in lock.architectures.values():
        for package in {*architecture.image("cpu"), *architecture.builders()}:
            if package.store_path.exists():
                server.files["/" + package.filename] = package.store_path.read_bytes()
    return {debian_mirror.MIRROR: server.url}
