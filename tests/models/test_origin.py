"""A file at its origin, read from any byte on, whatever breaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.models.origin import Download, OriginReader, Pace
from support.downloads import DATA, SHA256, TIMEOUTS, Tokens, sent
from support.file_server import Failure, FileServer, serve

SIZE = len(DATA)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve({"/m": DATA}) as running:
        yield running


@contextmanager
def opened(server: FileServer, sha256: str = SHA256, pace: Pace | None = None, **known: Any) -> Iterator[OriginReader]:
    with Client(TIMEOUTS) as client:
        origin = OriginReader(
            Download(server.url + "/m", Path(), "my model", sha256=sha256, **known), SIZE, client, pace
        )
        try:
            yield origin
        finally:
            origin.close()


def read(origin: OriginReader, start: int = 0, count: int = SIZE) -> bytes:
    return b"".join(origin.blocks(start, count))


def refused(server: FileServer, **known: Any) -> str:
    with opened(server, **known) as origin, pytest.raises(AikitError) as raised:
        read(origin)
        origin.check()
    return str(raised.value)


def test_it_is_read_in_parts_over_one_connection_and_hashed(server: FileServer) -> None:
    with opened(server) as origin:
        assert b"".join(read(origin, at, min(1_000_000, SIZE - at)) for at in range(0, SIZE, 1_000_000)) == DATA
        origin.check()
        assert (origin.digests().size, origin.digests().sha256) == (SIZE, SHA256)
    assert sent(server) == [None]


def test_what_was_read_is_read_again_and_hashed_once(server: FileServer) -> None:
    with opened(server) as origin:
        assert read(origin, 0, 5_000_000) == DATA[:5_000_000]
        assert read(origin, 2_000_000, 1) == DATA[2_000_000:2_000_001]
        assert read(origin, 4_000_000, SIZE - 4_000_000) == DATA[4_000_000:]
        origin.check()
    assert sent(server) == [None, "bytes=2000000-", "bytes=4000000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_made_again(server: FileServer, ranges: bool) -> None:
    server.ranges = ranges
    server.failures["/m"] = [Failure(cut=0), Failure(cut=3_000_000), Failure(status=503), Failure(cut=5_000_000)]
    with opened(server) as origin:
        assert read(origin) == DATA
        origin.check()
    assert server.count("/m") == 5


def test_attempts_that_win_nothing_end(server: FileServer) -> None:
    server.failures["/m"] = [Failure(cut=0)] * 9
    assert "my model: " in refused(server)
    assert server.count("/m") == TIMEOUTS.attempts


def test_a_drip_is_broken_off(server: FileServer) -> None:
    server.failures["/m"] = [Failure(drip=0.05)]
    with opened(server, pace=Pace(slowest=1000, window=0.3)) as origin:
        assert read(origin) == DATA


def test_credentials_are_renewed_but_not_for_ever(server: FileServer) -> None:
    tokens = Tokens("abcdefghi")
    server.failures["/m"] = [Failure(cut=2_000_000), *[Failure(status=401)] * 2]
    with opened(server, login=tokens) as origin:
        assert read(origin) == DATA
    assert [request.headers.get("authorization") for request in server.requests] == [None, None, "a", "b"]
    server.failures["/m"] = [Failure(status=401)] * 20
    assert "answered 401" in refused(server, login=tokens)


def test_a_wrong_file_is_named(server: FileServer) -> None:
    assert "has the sha256 " + SHA256 in refused(server, sha256=hashlib.sha256(b"other").hexdigest())
    server.files["/m"] = DATA + b"x"
    assert f"has {SIZE + 1:,} bytes, and must have {SIZE:,}" in refused(server)
    server.lengths = False
    assert f"sends more than {SIZE:,} bytes" in refused(server)
    server.files["/m"] = DATA[:-1]
    server.lengths = True
    server.failures["/m"] = [Failure(length=SIZE)]
    assert f"ends after {SIZE - 1:,} of {SIZE:,} bytes" in refused(server)


def test_another_part_than_was_asked_for_is_not_taken(server: FileServer) -> None:
    server.failures["/m"] = [Failure(cut=2_000_000), Failure(headers={"Content-Range": f"bytes 0-9/{SIZE}"})]
    with opened(server) as origin:
        assert read(origin) == DATA
