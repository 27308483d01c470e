"""The first bytes of a file at its origin: what they say, and how little is asked for."""

from __future__ import annotations

import struct

import pytest

from aikit_nix.http.client import Client, HttpError
from aikit_nix.sources import head
from support.file_server import Failure, FileServer


@pytest.mark.parametrize("ranges", [True, False])
def test_a_header_is_read_and_the_rest_is_left(web: Client, files: FileServer, model: bytes, ranges: bool) -> None:
    files.files["/m"] = model + bytes(64 << 20)
    files.ranges = ranges
    found = head.read(f"{files.url}/m", {"X-Own": "1"}, web, "m.gguf")
    assert (found.size, found.unfit) == (len(model) + (64 << 20), None)
    assert found.header
    assert found.header.facts.context_length == 4096
    (request,) = files.requests
    assert (request.headers["range"], request.headers["x-own"]) == (f"bytes=0-{head.MOST - 1}", "1")


def test_no_more_is_read_than_was_asked_for(web: Client, files: FileServer) -> None:
    """From a server that gives no ranges and has no end; the header would be whole after 4 MB."""
    files.ranges = False
    array = struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 4 << 20) + bytes(4 << 20)
    files.files["/m"] = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array
    files.failures["/m"] = [Failure(), Failure(endless=True)]
    assert head.read(f"{files.url}/m", {}, web, "m.gguf").header
    found = head.read(f"{files.url}/m", {}, web, "m.gguf", most=1 << 20)
    assert (found.size, found.header, found.unfit) == (None, None, None)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"no GGUF at all", b"<html>"])
def test_what_is_no_gguf_has_a_size_and_a_problem(web: Client, files: FileServer, data: bytes) -> None:
    files.ranges = False
    files.files["/m"] = data
    found = head.read(f"{files.url}/m", {}, web, "m.gguf")
    assert (found.size, found.header) == (len(data), None)
    assert found.unfit


@pytest.mark.parametrize("said", ["bytes 0-9/*", "bytes 0-9/-1", "bytes 0-9/1e9", "bytes 0-9/" + "9" * 99, "²", ""])
def test_a_size_that_is_none_is_not_believed(web: Client, files: FileServer, said: str) -> None:
    length = f"Content-Range: {said}\r\nContent-Length: 4\r\n\r\nGGUF".encode()
    files.failures["/m"] = [Failure(raw=b"HTTP/1.1 206 Partial Content\r\n" + length)]
    assert head.read(f"{files.url}/m", {}, web, "m.gguf").size is None


def test_a_refusal_is_an_error(web: Client, files: FileServer) -> None:
    with pytest.raises(HttpError, match="answered 404"):
        head.read(f"{files.url}/m", {}, web, "m.gguf")
