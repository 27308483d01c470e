"""A lock of Debian packages that can still be downloaded: mirrors drop a version soon after the next one."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from aikit_nix.base import process
from aikit_nix.base.errors import AikitError
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.debian import lock as debian
from aikit_nix.debian import mirror as debian_mirror
from aikit_nix.nix import setup, store
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
            prefetch(lock, mirrors[0])
            return None
        names = ", ".join(package.name for package in gone[:4]) + (", …" if len(gone) > 4 else "")
        say(f"{len(gone)} of the pinned Debian packages ({names}) are in neither the mirror nor the archive")
        lock, _ = debian.renew(mirrors[0], allow_older=True)
    except AikitError as problem:
        say(f"the pinned Debian packages are kept: {problem}")
        return None
    say(f"going on with the versions of {lock.date}: the image will differ from the pinned one")
    prefetch(lock, mirrors[0])
    path = folder / "debian-lock.json"
    lock.write(path)
    return path


def prefetch(lock: debian.DebianLock, mirror: str, runtime: str = "cpu") -> None:
    """Put what a runtime's images need into the store of a Nix daemon, which cannot be told this machine's mirror.

    A fixed output is found by its name and hash, whoever brought it. What the mirror lacks the archive will have.
    """
    if not setup.daemon():
        return
    with tempfile.TemporaryDirectory() as scratch:
        architectures = lock.architectures.values()
        tools = [each.packages[name] for each in architectures for name in each.tools]
        for package in {*tools, *(package for each in architectures for package in each.image(runtime))}:
            name = store_name(package.filename)
            if store.store_path(name, package.sha256).exists():
                continue
            file = Path(scratch) / name
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{mirror}/{package.filename}") as response:
                file.write_bytes(response.read())
                process.run(["nix-store", "--add-fixed", "sha256", file])


def mirror_of_store(server: FileServer) -> dict[str, str]:
    """Let a file server have the .debs that this machine's store has, as a Debian mirror; the environment that names it."""
    lock = debian.DebianLock.read(Path(os.environ.get("AIKIT_DEBIAN_LOCK", debian.LOCK)))
    for architecture in lock.architectures.values():
        for package in {*architecture.image("cpu"), *(architecture.packages[name] for name in architecture.tools)}:
            path = store.store_path(store_name(package.filename), package.sha256)
            if path.exists():
                server.files["/" + package.filename] = path.read_bytes()
    return {debian_mirror.MIRROR: server.url}


def store_name(filename: str) -> str:
    """The name that nix/packages/debian/builder.nix gives a .deb: Nix allows fewer characters than Debian."""
    return re.sub("[~:%]", "-", filename.rpartition("/")[2])
