"""A model's file at its origin, read from any byte on while it goes elsewhere: a push needs no copy of it on this disk."""

from __future__ import annotations

from collections.abc import Iterator

from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.hashing import Digests, Hasher
from aikit_nix.base.redact import blank
from aikit_nix.http.client import Client, HttpError, Stream, Trouble
from aikit_nix.models.download import Credentials, Download, Pace, gathered


class OriginReader:
    """A file of known size and SHA-256: `registry.upload`'s Part. A connection that breaks is made again where it was.

    Bytes that are read again, because the registry lost them, come from the origin again.
    """

    def __init__(self, download: Download, size: int, client: Client, pace: Pace | None = None) -> None:
        """`client` is for this alone: a registry's would end both connections when one is too slow."""
        self.size = size
        self._download = download
        self._client = client
        self._pace = pace or Pace()
        self._hasher = Hasher()
        self._hashed = 0  # bytes, from the first on
        self._at = -1
        self._coming: Iterator[bytes] = iter(())
        self._left = b""  # of a block that came

    def blocks(self, start: int, count: int) -> Iterator[bytes]:
        """Some of the file. Raises AikitError, which names it."""
        if start != self._at:
            self._at, self._left, self._coming = start, b"", self._from(start)
        while count:
            if not self._left:
                self._left = next(self._coming)
            block, self._left = self._left[:count], self._left[count:]
            self._hash(block)
            self._at += len(block)
            count -= len(block)
            yield block

    def check(self) -> None:
        """Raises AikitError where the bytes, each of which was read, have another SHA-256."""
        if (found := self.digests().sha256) != self._download.sha256:
            raise self._refused(
                f"has the sha256 {found}, and must have {self._download.sha256}: it is not the file that is meant"
            )

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

    def _from(self, at: int) -> Iterator[bytes]:
        backoff, credentials, best = self._client.backoff(), Credentials(self._download), at
        while at < self.size:
            try:
                part = {"Range": f"bytes={at}-"} if at else {}
                with self._client.stream(self._download.url, headers={**credentials.headers, **part}) as answer:
                    for block in gathered(self._wanted(answer, at)):
                        at += len(block)
                        yield block
                if at < self.size:
                    message = f"{self._where} ended after {at:,} of {self.size:,} bytes"
                    raise HttpError(Trouble.INTERRUPTED, message, again=True)
            except HttpError as problem:
                if at > best:
                    best = at
                    backoff.progressed()
                if problem.status == 416:
                    raise self._refused(f"ends after {at:,} of {self.size:,} bytes: it is another file") from None
                if credentials.renewed(problem, at):
                    continue
                try:
                    backoff.failed(problem)
                except HttpError:
                    hint = self._download.hint(problem)
                    raise error(
                        f"{self._download.name}: {problem.message}{hint}", self._download.at, problem.code
                    ) from None

    def _wanted(self, answer: Stream, at: int) -> Iterator[bytes]:
        """What follows `at` of an answer, to the file's end. Raises HttpError, and AikitError where it is another file."""
        begins, size = answer.place()
        if begins is None or (answer.status == 206 and begins != at):
            raise HttpError(Trouble.INTERRUPTED, f"{self._where} gives another part than was asked for", again=True)
        if size not in (None, self.size):
            raise self._refused(f"has {size:,} bytes, and must have {self.size:,}: it is another file")
        for block in answer.blocks(self._pace.slowest, self._pace.window):
            wanted = block[max(at - begins, 0) :]  # a server that knows no ranges begins at the beginning
            begins += len(block)
            if begins > self.size:
                raise self._refused(f"sends more than {self.size:,} bytes: it is another file")
            if wanted:
                yield wanted

    def _refused(self, why: str) -> AikitError:
        return error(f"{self._download.name}: {self._where} {why}", self._download.at, "wrong-file")

    @property
    def _where(self) -> str:
        return blank(self._download.url)
