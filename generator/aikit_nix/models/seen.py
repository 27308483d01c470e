"""What this machine derived from models' bytes itself, with which the claims of a lock, a plan or an image are compared.

SHA-256 fixes a file's bytes, and bytes and path fix its layer: so what is kept under these two stays true for ever, and no
file that changes afterwards can make it say something else. It is kept below ~/.cache/aikit-nix/seen; which SHA-256 a file
of this machine has, as long as it is the same file, beside it in digests.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from aikit_nix.aikitfile.types import Pin
from aikit_nix.base import console, files, hashing, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.hashing import Digests
from aikit_nix.models.entry import File
from aikit_nix.models.remote import frame_of, layer_of
from aikit_nix.nix import setup, store
from aikit_nix.sources import judge
from aikit_nix.sources.gguf import Facts

_SLOW_BYTES = 256 << 20  # reading so much takes a while

_MAX_BYTES = 1 << 16
_RACY_NS = 2_000_000_000


def remember(path: str, pin: Pin) -> None:
    """What the bytes of a file say that is `path` in the image. Only for what was derived from them here."""
    known = recall(path, pin)
    pin = Pin(
        pin.sha256,
        pin.size,
        pin.blake3 or (known.blake3 if known else None),
        pin.layer or (known.layer if known else None),
        gguf=pin.gguf or (known.gguf if known else None),
    )
    if pin != known:
        with suppress(OSError, ValueError):  # nobody needs it, and of an odd path nothing is remembered
            file = _file(path, pin.sha256)
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(file, typed_json.pack(File.of(path, pin)))


def recall(path: str, pin: Pin) -> Pin | None:
    """What was derived here of the bytes with a pin's SHA-256; None where they never were seen as that path."""
    try:
        found, known = typed_json.decode(files.read_bounded(_file(path, pin.sha256), _MAX_BYTES), File).pinned()
    except (AikitError, ValueError):
        return None
    return known if (found, known.sha256) == (path, pin.sha256) and known.layer else None


def derived(claims: Iterable[tuple[str, Pin]]) -> dict[str, Pin]:
    """What is known here of files, by path in the image: what was seen before, and what lies in the store, which is read,
    where this user may ask Nix whether it is whole.

    Raises AikitError where the store has other bytes than it says.
    """
    claims = list(claims)
    found = {path: known for path, pin in claims if (known := recall(path, pin))}
    unread = [(path, pin) for path, pin in claims if path not in found and _in_store(path, pin).is_file()]
    if not unread or setup.problem():
        return found
    there = store.present((posixpath.basename(path), pin.sha256) for path, pin in unread)
    return found | {path: _read(path, pin) for (path, pin), is_there in zip(unread, there, strict=True) if is_there}


def compare(claims: Iterable[tuple[str, Pin]], known: Mapping[str, Pin], where: str) -> None:
    """Raises AikitError with every claim (of the file or image `where`) that is not what the bytes say."""
    wrong = []
    for path, pin in claims:
        right = known.get(path)
        for what, claimed, own in (
            ("size", pin.size, right and right.size),
            ("BLAKE3", pin.blake3, right and right.blake3),
            ("layer", pin.layer and pin.layer.digest, right and right.layer and right.layer.digest),
            ("layer's size", pin.layer and pin.layer.size, right and right.layer and right.layer.size),
            ("GGUF header", *_headers(pin.gguf, right.gguf if right else None)),
        ):
            if claimed is not None and own is not None and claimed != own:
                message = f"{where} claims that the {what} of {path} is {claimed}, and its bytes say {own}: somebody changed it; `aikit-nix lock` derives it again"
                wrong.append(Diagnostic(Severity.ERROR, "claim", message))
    if wrong:
        raise AikitError(*wrong)


def _headers(claimed: Facts | None, own: Facts | None) -> tuple[Facts | None, Facts | None]:
    """What can be compared of two: an older lock, or what an older version remembers, has no shape."""
    if claimed and own and not (claimed.shape and own.shape):
        return structs.replace(claimed, shape=None), structs.replace(own, shape=None)
    return claimed, own


def check(claims: Iterable[tuple[str, Pin]], where: str) -> list[str]:
    """Compare claims with what is known here; gives the paths of files that were never seen. Raises AikitError."""
    claims = list(claims)
    known = derived(claims)
    compare(claims, known, where)
    return [path for path, _ in claims if path not in known]


def _read(path: str, pin: Pin) -> Pin:
    file = _in_store(path, pin)
    digests = hashed(path, file)
    if digests.sha256 != pin.sha256:
        raise error(
            f"{file} is damaged: its sha256 is {digests.sha256}. Take it away with `nix-store --delete {file}`, then fetch"
            " again",
            code="sha256-mismatch",
        )
    known = Pin(pin.sha256, digests.size, digests.blake3, layer_of(path, digests), gguf=judge.facts(file))
    remember(path, known)
    return known


def _in_store(path: str, pin: Pin) -> Path:
    return store.store_path(store.name(posixpath.basename(path)), pin.sha256)


def _file(path: str, sha256: str) -> Path:
    return files.cache_folder() / "seen" / f"{hashlib.sha256(f'{sha256} {path}'.encode()).hexdigest()}.json"


def hashed(path: str, file: Path, take: Callable[[bytes], object] = lambda _: None) -> Digests:
    """All hashes of a local file that is `path` in the image; `take` gets each block that is read.

    A file that was seen, and is the same by device, inode, size and both times, is not read again. Raises AikitError.
    """
    before = _identity(file)
    note = files.cache_folder() / "digests" / hashlib.sha256(repr(before).encode()).hexdigest()
    sha256 = _noted(note)
    known = recall(path, Pin(sha256)) if sha256 else None
    if known and known.size is not None and known.blake3 and known.layer:
        return Digests(known.size, known.sha256, known.blake3, known.layer.digest.removeprefix("sha256:"))
    started = time.time_ns()
    digests = _hashed(path, file, before[2] if before else 0, take)
    remember(path, Pin(digests.sha256, digests.size, digests.blake3, layer_of(path, digests)))
    # A file that was written a moment ago may be written again without a new time: git's racy problem.
    if before and started - max(before[-2:]) >= _RACY_NS and _identity(file) == before:
        with suppress(OSError):  # nobody needs it
            note.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(note, digests.sha256.encode())
    return digests


def _identity(file: Path) -> tuple[int, ...]:
    try:
        return hashing.identity(file.stat())
    except (OSError, ValueError):
        return ()  # whoever reads it says why


def _noted(note: Path) -> str | None:
    try:
        said = files.read_bounded(note, _MAX_BYTES).decode(errors="replace")
    except AikitError:
        return None
    return said if re.fullmatch("[0-9a-f]{64}", said) else None


def _hashed(path: str, file: Path, size: int, take: Callable[[bytes], object]) -> Digests:
    """With a progress bar where reading takes a while."""
    if size < _SLOW_BYTES:
        return hashing.hash_file(file, frame_of(path), take)
    with console.progress(1, size) as progress, progress.file(f"reading {file.name}", size) as bar:

        def taken(block: bytes) -> None:
            take(block)
            bar.advance(len(block))

        return hashing.hash_file(file, frame_of(path), taken)
