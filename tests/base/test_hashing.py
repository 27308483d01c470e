"""All hashes of a file in one pass."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import BLOCK, Digests, Frame, Hasher, hash_file


def frame(size: int) -> Frame:
    return Frame(b"header of %d" % size, bytes(-size % 512 + 1024))


def expected(data: bytes, *, framed: bool = True) -> Digests:
    layer = hashlib.sha256(frame(len(data)).header + data + frame(len(data)).trailer).hexdigest()
    return Digests(
        len(data), hashlib.sha256(data).hexdigest(), blake3.blake3(data).hexdigest(), layer if framed else None
    )


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
def test_only_files_are_read(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "\x1b[31m"
    make(path)
    with pytest.raises(AikitError, match=message) as raised:
        hash_file(path)
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
