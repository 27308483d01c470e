"""A file at its origin, read from any byte on: where a connection breaks it is made again, until all of the file came.

One way for both who want it: a download, which keeps the bytes on this disk, and a push, which sends them on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from aikit_nix.base.errors import AikitError, Position, error
from aikit_nix.base.hashing import BLOCK, Digests, Frame, Hasher
from aikit_nix.base.redact import blank
from aikit_nix.http.client import Client, HttpError, Stream, Trouble

# An attempt that wins this much is no failed one: what breaks every gigabyte still comes to an end.
_PROGRESS = 4 << 20
_RENEWALS = 3  # of credentials, at one point of the file: one that another thread has may be too old by now, too


class Login(Protocol):
    """A registry's: the headers to ask with, and others where those are not taken any more, for they live for minutes."""

    def headers(self) -> Mapping[str, str]: ...

    def renew(self, refused: HttpError, login: Mapping[str, str]) -> bool:
        """Whether there are others by now than those that were refused (401). Raises AikitError."""


@dataclass(frozen=True)
class Download:
    """A file to fetch: from where to where, and what is known of it. What is not known is found out."""

    url: str
    to: Path  # in a folder of our own
    name: str  # as messages call it
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # credentials that do not change
    login: Login | None = None
    size: int | None = None
    sha256: str | None = None  # judges at the end whether all bytes are of the right file
    layer_of: Callable[[int], Frame] | None = None  # for a size: its layer's digest is wanted
    at: Position | None = None  # where the user named it
    hint: Callable[[HttpError], str] = lambda _: ""  # what to do about a refusal, put after the message

    def wrong(self, digests: Digests) -> HttpError | None:
        """What is wrong with a file of these digests."""
        if self.sha256 in (None, digests.sha256):
            return None
        return self.refusal(
            f"has the sha256 {digests.sha256}, and must have {self.sha256}: it is not the file that is meant"
        )

    def refusal(self, why: str, *, again: bool = False) -> HttpError:
        """The error that the file at the address is not the one that is meant, or not whole (`again`)."""
        return HttpError(Trouble.INTERRUPTED if again else Trouble.REFUSED, f"{blank(self.url)} {why}", again=again)

    def error(self, problem: HttpError) -> AikitError:
        """A problem, as it is said of this download."""
        return error(f"{self.name}: {problem.message}{self.hint(problem)}", self.at, problem.code)


@dataclass(frozen=True)
class Pace:
    """How slow a download may be, in bytes a window of seconds, before it is begun anew where it stands."""

    slowest: int = 64 << 10
    window: float = 60
    limit: int = 4 << 40  # bytes of a file whose size nobody states


class Reading:
    """A download's file while it is read. `size` is learned from the first answer where the download does not say it.

    `validator` tells this version of the file from others at its server: what If-Range takes, if there is such a thing.
    """

    def __init__(self, download: Download, client: Client, pace: Pace | None = None) -> None:
        self.size = download.size
        self.validator = ""
        self._download = download
        self._client = client
        self._pace = pace or Pace()
        self._login: Mapping[str, str] = {}
        self._renewals: Counter[int] = Counter()  # of credentials, by the bytes that were there
        self._backoff = client.backoff()
        self._best = 0

    def pieces(self, at: int) -> Iterator[tuple[int, bytes]]:
        """The file's bytes from `at` on, each piece with its place in the file; from 0 on again where what came before
        belongs to another version of the file, or the server gives no parts. Raises HttpError where it cannot be had.
        """
        self._at, self._best = at, max(self._best, at)
        while self.size is None or self._at < self.size:
            try:
                yield from self._attempt()
                if self.size is None:
                    self.size = self._at
                elif self._at < self.size:
                    raise self._download.refusal(f"ended after {self._at:,} of {self.size:,} bytes", again=True)
            except HttpError as problem:
                self._recover(problem)

    def _attempt(self) -> Iterator[tuple[int, bytes]]:
        self._login = self._download.login.headers() if self._download.login else {}
        headers = {**self._download.headers, **self._login}
        if self._at:
            headers["Range"] = f"bytes={self._at}-"
            if self.validator:
                headers["If-Range"] = self.validator
        with self._client.stream(self._download.url, headers=headers) as answer:
            self._begin(answer)
            most = self._pace.limit if self.size is None else self.size
            for piece in _gathered(answer.blocks(self._pace.slowest, self._pace.window)):
                place, self._at = self._at, self._at + len(piece)
                if self._at > most:
                    why = f"{blank(self._download.url)} sends more than {most:,} bytes: it is another file"
                    raise HttpError(Trouble.TOO_LONG, why)
                yield place, piece

    def _begin(self, answer: Stream) -> None:
        """Where the answer begins, and whether it is one of the same file."""
        begins, size = answer.place()
        said = validator(answer.headers)
        if answer.status == 206:
            is_other = bool(self.validator and said and said != self.validator)
            if begins != self._at or is_other or (None not in (size, self.size) and size != self.size):
                raise self._changed()
            self.size = size if self.size is None else self.size
            return
        expected = self._download.size
        if expected is not None and size not in (None, expected):
            raise self._download.refusal(f"has {size:,} bytes, and must have {expected:,}: it is another file")
        self._at, self.size, self.validator = 0, size if expected is None else expected, said

    def _recover(self, problem: HttpError) -> None:
        """Before the next attempt; raises HttpError where there is no sense in one."""
        if problem.status == 416 and self._at:
            if self._download.size is not None:
                why = f"ends after {self._at:,} of {self._download.size:,} bytes: it is another file"
                raise self._download.refusal(why) from None
            problem = self._changed()
        if self._renewed(problem):
            return
        if self._at >= self._best + _PROGRESS:
            self._best = self._at
            self._backoff.progressed()
        self._backoff.failed(problem)
        if not (self._download.sha256 or self.validator):
            self._at = 0

    def _changed(self) -> HttpError:
        """The file is another one than a moment ago: it begins anew."""
        self._at, self.size, self.validator = 0, self._download.size, ""
        return self._download.refusal("changed meanwhile", again=True)

    def _renewed(self, problem: HttpError) -> bool:
        """Whether there is another login to try."""
        login = self._download.login
        if login is None or problem.status != 401 or self._renewals[self._at] >= _RENEWALS:
            return False
        self._renewals[self._at] += 1
        try:
            return login.renew(problem, self._login)
        except AikitError as failed:
            raise AikitError(*(replace(each, at=self._download.at) for each in failed.diagnostics)) from None


class OriginReader:
    """A file of known size and SHA-256: `registry.upload`'s Part. Bytes that are read again, because the registry lost
    them, come from the origin again.
    """

    def __init__(self, download: Download, size: int, client: Client, pace: Pace | None = None) -> None:
        """`client` is for this alone: a registry's would end both connections when one is too slow."""
        self.size = size
        self._download = replace(download, size=size)
        self._reading = Reading(self._download, client, pace)
        self._hasher = Hasher()
        self._hashed = 0  # bytes, from the first on
        self._at = -1
        self._coming: Iterator[tuple[int, bytes]] = iter(())
        self._left = b""  # of a piece that came

    def blocks(self, start: int, count: int) -> Iterator[bytes]:
        """Some of the file. Raises AikitError, which names it."""
        if start != self._at:
            self._at, self._left, self._coming = start, b"", self._reading.pieces(start)
        while count:
            while not self._left:
                try:
                    place, piece = next(self._coming)
                except HttpError as problem:
                    raise self._download.error(problem) from None
                self._left = piece[max(self._at - place, 0) :]
            block, self._left = self._left[:count], self._left[count:]
            self._hash(block)
            self._at += len(block)
            count -= len(block)
            yield block

    def check(self) -> None:
        """Raises AikitError where the bytes, each of which was read, have another SHA-256."""
        if wrong := self._download.wrong(self.digests()):
            raise self._download.error(wrong)

    def digests(self) -> Digests:
        """Of the file, each byte of which was read."""
        return self._hasher.digests()

    def close(self) -> None:
        """Let the connection and the hashes' threads go."""
        self._coming, self._left = iter(()), b""
        self._hasher.close()

    def _hash(self, block: bytes) -> None:
        if new := block[max(self._hashed - self._at, 0) :]:
            self._hasher.update(new)
            self._hashed += len(new)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces as blocks; what came before a connection broke is given too."""
    waiting: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= BLOCK:
                yield b"".join(waiting)
                waiting, size = [], 0
    except HttpError:
        if waiting:
            yield b"".join(waiting)
        raise
    if waiting:
        yield b"".join(waiting)


def validator(headers: Mapping[str, str]) -> str:
    """What If-Range takes: a strong ETag, else the date of the last change, else nothing."""
    etag = headers.get("ETag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        return etag
    changed = headers.get("Last-Modified", "").strip()
    return changed if changed.isascii() and changed.isprintable() and len(changed) < 100 else ""
