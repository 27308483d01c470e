"""The Nix store: where a file of a known hash lies in it, and how it gets there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from aikit_nix import process
from aikit_nix.errors import AikitError, error
from aikit_nix.hashing import Frame
from aikit_nix.redact import shown

_PIPE = 1 << 20  # bytes
_AT_ONCE = 1000  # paths in one command line
_NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def name(file_name: str) -> str:
    """A file name as the store allows it: `[0-9A-Za-z+._?=-]`, no leading dot, at most 211 characters, no derivation's."""
    fitting = re.sub(r"[^0-9A-Za-z+._?=-]", "-", file_name).lstrip(".")[-200:].lstrip(".") or "model"
    return fitting + "-" if fitting.endswith(".drv") else fitting


def present(wanted: Iterable[tuple[str, str]]) -> list[bool]:
    """For each (file name, sha256): whether the store holds that file. One question to Nix for all."""
    paths = [str(store_path(name(file), sha256)) for file, sha256 in wanted]
    missing: set[str] = set()
    for start in range(0, len(paths), _AT_ONCE):
        argv = ["nix-store", "--check-validity", "--print-invalid", *paths[start : start + _AT_ONCE]]
        missing |= set(process.run(argv).split())
    return [path not in missing for path in paths]


def store_path(name: str, sha256: str) -> Path:
    """Where Nix keeps a flat file of that name and sha256.

    What `nix-store --print-fixed-path sha256 SHA256 NAME` prints, which a test compares it with: that takes 10 ms a file, and an
    aikitfile may have a thousand. Source: the Nix manual, "Complete Store Path Calculation" (fixed output, flat).
    """
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256}:".encode()).hexdigest()
    digest = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:{name}".encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    number = int.from_bytes(folded, "little")
    base32 = "".join(_NIX_BASE32[(number >> (5 * index)) & 31] for index in reversed(range(32)))
    return Path(f"/nix/store/{base32}-{name}")


def nar_frame(size: int) -> Frame:
    """What stands around the content of a file that is not executable in a NAR.

    Source: the Nix manual, "Nix Archive (NAR) format".
    """
    words = (b"nix-archive-1", b"(", b"type", b"regular", b"contents")
    return Frame(b"".join(map(_word, words)) + struct.pack("<Q", size), bytes(-size % 8) + _word(b")"))


def add(file: Path, file_name: str, sha256: str, nar: str | None = None) -> bool:
    """Bring a file into the store, unless it is there; whether it was brought. Later builds find it by name and hash.

    `sha256` in hex is what the file must have, `nar` in hex is the hash of its NAR where it is known, which makes it
    cheaper: `nix-store --add-fixed` reads the file three times and hashes it four times, one after the other, where `nix
    copy` from a binary cache that has this one path reads it once and hashes it twice. (`nix-store --import` and `nix store
    add-file` keep the whole file in memory in Nix 2.8.) Nix checks both hashes. Raises AikitError.
    """
    path = store_path(name(file_name), sha256)
    if process.succeeds(["nix-store", "--check-validity", path]):
        return False
    file = file.resolve()
    if nar is None or not _copied(file, path, sha256, nar):
        added = _added(file, name(file_name))
        if added != path:
            raise error(f"{shown(str(file))} has another sha256 than {sha256}: it changed", code="sha256-mismatch")
    return True


def _copied(file: Path, path: Path, sha256: str, nar: str) -> bool:
    """Whether `nix copy` did it: it may not know this, or its sandbox may not let it read the pipe."""
    with tempfile.TemporaryDirectory(prefix="aikit-nix-") as scratch:
        cache = Path(scratch)
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
            process.run(["nix", *features, "copy", "--from", cache.as_uri(), path])
            return process.succeeds(["nix-store", "--check-validity", path])
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
    return Path(process.run(["nix-store", "--add-fixed", "sha256", file]).strip())


def _word(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)
