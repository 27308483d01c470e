"""Downloads as tests make them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import Frame
from aikit_nix.http.client import Client, HttpError, Timeouts
from aikit_nix.models.download import Fetched, fetch_all
from aikit_nix.models.origin import Download, Pace
from support.file_server import FileServer

TIMEOUTS = Timeouts(connect=5, read=1, answer=2, attempts=4, first_wait=0.01, longest_wait=1)
# Above what is fetched again rather than resumed, and no multiple of a block.
DATA = random.Random(7).randbytes((9 << 20) + 123)
SHA256 = hashlib.sha256(DATA).hexdigest()


def frame(size: int) -> Frame:
    return Frame(b"header %d" % size, b"trailer %d" % size)


def one(server: FileServer, folder: Path, **known: Any) -> Download:
    return Download(server.url + "/m", folder / "m.gguf", "my model", **known)


class Tokens:
    """A login that has another token each time that it is renewed; none before."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = iter(tokens)
        self._now: dict[str, str] = {}

    def headers(self) -> dict[str, str]:
        return self._now

    def renew(self, refused: HttpError, login: Mapping[str, str]) -> bool:
        assert (refused.status, login) == (401, self._now)
        self._now = {"Authorization": next(self._tokens)}
        return True


def fetch(*downloads: Download, **options: Any) -> list[Fetched]:
    """`fetch_all` with a client that soon gives up."""
    with Client(TIMEOUTS) as web:
        return fetch_all(downloads, web, **options)


def problem(*downloads: Download, pace: Pace | None = None) -> str:
    """What is said of downloads that fail."""
    with pytest.raises(AikitError) as raised:
        fetch(*downloads, pace=pace)
    assert all("\n" not in diagnostic.message for diagnostic in raised.value.diagnostics)
    return str(raised.value)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sent(server: FileServer) -> list[str | None]:
    """The Range of each request."""
    return [request.headers.get("range") for request in server.requests]
