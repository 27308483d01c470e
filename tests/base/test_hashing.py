"""All hashes of a file in one pass, and the memory of local files' hashes."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aikit_nix.base import hashing
from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import BLOCK, Digests, Frame, Hasher, hash_file, hash_local


def frame(size: int) -> Frame:
    return Frame(b"header of %d" % size, bytes(-size % 512 + 1024))


def expected(data: bytes, *, framed: bool = True) -> Digests:
    layer = hashlib.sha256(frame(len(data)).header + data + frame(len(data)).trailer).hexdigest()
    return Digests(
        len(data), hashlib.sha256(data).hexdigest(), blake3.blake3(data).hexdigest(), layer if framed else None
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "aikit-nix" / "digests"


@given(st.lists(st.binary(max_size=2000), max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_stream_in_any_pieces(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    hasher = Hasher(frame(len(data)))
    for piece in pieces:
        hasher.update(piece)
    assert hasher.digests() == expected(data)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 5])
def test_a_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    seen: list[bytes] = []
    assert hash_file(tmp_path / "f", frame, take=seen.append) == expected(data)
    assert b"".join(seen) == data
    assert hash_file(tmp_path / "f") == expected(data, framed=False)


def test_threads_are_let_go() -> None:
    before = threading.active_count()
    hasher = Hasher(frame(1))
    hasher.update(b"x")
    hasher.close()
    hasher = Hasher(frame(1))
    hasher.digests()
    hasher.close()
    assert threading.active_count() == before


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "cannot be read: it is a pipe"),
        (os.mkdir, "cannot be read: it is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is a device"),
        (make_socket, "it is a socket"),
        (lambda path: None, "cannot be read: no such file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
@pytest.mark.parametrize("read", [hash_file, hash_local])
def test_only_files_are_read(
    tmp_path: Path, make: Callable[[Path], object], message: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "\x1b[31m"
    make(path)
    with pytest.raises(AikitError, match=message) as raised:
        read(path)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("change", ["grow", "cut", "touch"])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * BLOCK))
    os.utime(path, (0, 0))

    def disturb(_: bytes) -> None:
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"x")
        elif change == "cut":
            os.truncate(path, BLOCK)
        else:
            os.utime(path)

    with pytest.raises(AikitError, match="changed while it was read"):
        hash_file(path, take=disturb)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that were read for their hashes."""
    seen: list[Path] = []

    def watched(path: Path, *arguments: object, **more: object) -> Digests:
        seen.append(path)
        return hash_file(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing, "hash_file", watched)
    yield seen


def settled(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose last change, by the clock that hashing sees, was long ago."""
    path.write_bytes(data)
    now = path.stat().st_ctime_ns + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    return path


def test_a_file_at_rest_is_read_once(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(tmp_path / "f", b"content", monkeypatch)
    assert [hash_local(path, frame) for _ in range(2)] == [expected(b"content")] * 2
    assert hash_local(path) == expected(b"content", framed=False)
    assert len(reads) == 1
    # another place in the image: the layer's digest is not known
    assert hash_local(path, lambda size: Frame(b"other", b"")).layer == hashlib.sha256(b"othercontent").hexdigest()
    assert len(reads) == 2
    assert hash_local(path, frame) == expected(b"content")
    assert len(reads) == 2


@pytest.mark.parametrize("by", ["content", "replace", "touch"])
def test_a_changed_file_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    path = settled(tmp_path / "f", b"before", monkeypatch)
    hash_local(path)
    before = path.stat()
    time.sleep(0.05)  # a file system's clock ticks 100 to 1000 times a second
    data = b"before" if by == "touch" else b"behind"
    if by == "replace":
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(path)
    else:
        path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p and tar do
    assert hash_local(path) == expected(data, framed=False)
    assert len(reads) == 2


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path: Path, reads: list[Path], cache: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for _ in range(2):
        hash_local(tmp_path / "f")
    assert len(reads) == 2
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"sha256": 1}', b"[" * 99999, b"\xff"])
def test_a_damaged_cache_is_ignored(
    tmp_path: Path, reads: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    path = settled(tmp_path / "f", b"content", monkeypatch)
    hash_local(path, frame)
    (entry,) = cache.iterdir()
    entry.write_bytes(damage)
    assert hash_local(path, frame) == expected(b"content")
    assert hash_local(path, frame) == expected(b"content")
    assert len(reads) == 2


def test_no_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(tmp_path / "f", b"content", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert hash_local(path) == expected(b"content", framed=False)
