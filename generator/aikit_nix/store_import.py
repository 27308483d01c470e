"""The cheapest way of a file into the Nix store that Nix itself offers.

`nix-store --add-fixed` reads the file three times and hashes it four times, one after the other. Where the hash of the
file's NAR is known already (it streamed by while the file was downloaded), `nix copy` from a binary cache that has this
one path reads it once and hashes it twice; Nix checks both hashes. `nix-store --import` would do too, but keeps the
whole file in memory, and `nix store add-file` likewise (Nix 2.8).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import threading
import time
from pathlib import Path

from aikit_nix import nix
from aikit_nix.errors import AikitError, error
from aikit_nix.hashing import Frame
from aikit_nix.redact import shown

_PIPE = 1 << 20  # bytes


def nar_frame(size: int) -> Frame:
    """What stands around the content of a file that is not executable in a NAR.

    Source: the Nix manual, "Nix Archive (NAR) format".
    """
    words = (b"nix-archive-1", b"(", b"type", b"regular", b"contents")
    return Frame(b"".join(map(_word, words)) + struct.pack("<Q", size), bytes(-size % 8) + _word(b")"))


def add(file: Path, name: str, sha256: str, nar: str | None = None) -> Path:
    """Bring a file into the Nix store, where it is found by name and hash; returns its store path.

    `sha256` in hex is what the file must have, `nar` in hex is the hash of its NAR where it is known: that is faster.
    Raises AikitError.
    """
    path = Path(nix.run(["nix-store", "--print-fixed-path", "sha256", sha256, name]).strip())
    if nix.succeeds(["nix-store", "--check-validity", path]):
        return path
    if nar is None or not _copied(file, path, sha256, nar):
        added = _added(file, name)
        if added != path:
            raise error(f"{shown(str(file))} has another sha256 than {sha256}: it changed", code="sha256-mismatch")
    return path


def _copied(file: Path, path: Path, sha256: str, nar: str) -> bool:
    """Whether `nix copy` did it: it may not know this, or its sandbox may not let it read the pipe."""
    with tempfile.TemporaryDirectory(prefix="aikit-nix-") as name:
        cache = Path(name)
        pipe = cache / "nar" / "file.nar"
        pipe.parent.mkdir()
        os.mkfifo(pipe, 0o600)
        frame = nar_frame(file.stat().st_size)
        size = len(frame.header) + file.stat().st_size + len(frame.trailer)
        (cache / "nix-cache-info").write_text(f"StoreDir: {path.parent}\n")
        (cache / f"{path.name[:32]}.narinfo").write_text(
            f"StorePath: {path}\nURL: nar/file.nar\nCompression: none\nNarHash: sha256:{nar}\nNarSize: {size}\n"
            f"References: \nCA: fixed:sha256:{sha256}\n"
        )
        ended = threading.Event()
        feeder = threading.Thread(target=_feed, args=(pipe, file, frame, ended), daemon=True)
        feeder.start()
        features = ["--extra-experimental-features", "nix-command"]
        try:
            nix.run(["nix", *features, "copy", "--from", cache.as_uri(), path])
            return nix.succeeds(["nix-store", "--check-validity", path])
        except AikitError:
            return False
        finally:
            ended.set()
            feeder.join()


def _feed(pipe: Path, file: Path, frame: Frame, ended: threading.Event) -> None:
    """Write the NAR into the pipe until Nix has it all, or has ended."""
    with file.open("rb") as source:
        while (descriptor := _open_writer(pipe)) is None:
            if ended.wait(0.01):
                return
        try:
            size = os.fstat(source.fileno()).st_size
            parts = (frame.header, None, frame.trailer)
            for part in parts:
                at, end = 0, size if part is None else len(part)
                while at < end and not ended.is_set():
                    try:
                        if part is None:
                            sent = os.sendfile(descriptor, source.fileno(), at, min(_PIPE, end - at))
                        else:
                            sent = os.write(descriptor, part[at:])
                    except BrokenPipeError:
                        # Newer Nix opens it twice: first it tries to map it. Nothing was lost.
                        time.sleep(0.01)
                        continue
                    if sent == 0:
                        return  # the file was cut: Nix will say so
                    at += sent
        finally:
            os.close(descriptor)


def _open_writer(pipe: Path) -> int | None:
    """The pipe to write to, once somebody reads it; opening it plainly would wait forever for a Nix that failed."""
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    os.set_blocking(descriptor, True)
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
    return descriptor


def _added(file: Path, name: str) -> Path:
    """`nix-store --add-fixed` names a store path by its file: another name goes through a link of that name."""
    if file.name == name:
        return _add_fixed(file)
    try:
        with tempfile.TemporaryDirectory(prefix=".aikit-nix-", dir=file.parent) as folder:
            os.link(file, Path(folder) / name)
            return _add_fixed(Path(folder) / name)
    except OSError:
        # A read-only folder, or a file system without hard links.
        with tempfile.TemporaryDirectory(prefix="aikit-nix-") as folder:
            shutil.copyfile(file, Path(folder) / name)
            return _add_fixed(Path(folder) / name)


def _add_fixed(file: Path) -> Path:
    return Path(nix.run(["nix-store", "--add-fixed", "sha256", file]).strip())


def _word(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)
