"""One blob on its way into a repository, from wherever its bytes lie: in chunks, taken up again where a connection broke.

Source: the OCI distribution specification 1.1, "Push". Registries differ in what they take, so what one refuses is tried
in the next simpler way: smaller chunks, then the whole blob in one request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import quote, urlsplit

from aikit_nix.base import console, files
from aikit_nix.base.errors import AikitError, error
from aikit_nix.http.client import Answer, HttpError, Trouble
from aikit_nix.registry.client import Repository

CHUNK = 64 << 20  # bytes of one request
_LEAST_CHUNK = 1 << 20
_BLOCK = 512 << 10  # bytes that are read, hashed and sent at a time
_CLOSING = 900.0  # seconds: a registry may read a large blob again, or copy it, before it answers
_TOO_LARGE = 413
# What registries and proxies answer that know no chunks, or not the way in which we send them
_NO_CHUNKS = (400, 404, 405, 411, 415, 416, 501)


class Part(Protocol):
    """Bytes from elsewhere, a model at its origin say, which can be read from any of them on. Methods raise AikitError."""

    @property
    def size(self) -> int: ...

    def blocks(self, start: int, count: int) -> Iterator[bytes]: ...

    def check(self) -> None:
        """Raises where the bytes, each of which was read, are not the right ones."""


@dataclass(frozen=True)
class Blob:
    """Bytes with a digest, and where they are: parts one after the other; None where they are not here.

    `digest` is empty where only the bytes will tell: `send` gives it. `what` is the blob for people, `file` the model that
    it is made of, wherever that should be.
    """

    digest: str
    size: int  # bytes
    what: str
    parts: tuple[bytes | Path | Part, ...] | None
    file: Path | None = None

    @property
    def where(self) -> str:
        """The blob for people who have to look after it."""
        return f"{self.what} ({self.file})" if self.file else self.what

    @classmethod
    def of(cls, data: bytes, what: str) -> Blob:
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), what, (data,))


class Content:
    """A blob's bytes from any offset on; each is hashed once, while the one before it is sent.

    The last block is only given when all of them have the blob's digest: what is wrong never becomes a whole blob.
    """

    def __init__(self, blob: Blob) -> None:
        if blob.parts is None:
            raise error(f"{blob.where} is not on this machine", code="missing-blob")
        self.blob = blob
        self.digest = blob.digest
        self._parts = blob.parts
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._busy: Future[None] | None = None
        self.hashed = 0  # bytes, from the first on

    def __enter__(self) -> Content:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()

    def blocks(self, start: int, count: int, told: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
        """The bytes from `start` on; `told` hears how many were taken. Raises AikitError: see the class."""
        position = start
        for block in self._read(start, count):
            self._hash_new(block, position)
            position += len(block)
            if position == self.blob.size:
                self._check()
            yield block
            told(len(block))
        if position != start + count:
            self._refuse(f"ends after {position:,} of {self.blob.size:,} bytes")

    def _read(self, start: int, count: int) -> Iterator[bytes]:
        at = 0
        for part in self._parts:
            size = self._size(part)
            skipped = min(max(start - at, 0), size)
            at += size
            left = min(size - skipped, count)
            count -= left
            if not left:
                continue
            if isinstance(part, bytes):
                yield part[skipped : skipped + left]
            elif isinstance(part, Path):
                yield from files.read_part(part, skipped, left, _BLOCK)
            else:
                yield from part.blocks(skipped, left)

    def _size(self, part: bytes | Path | Part) -> int:
        if isinstance(part, bytes):
            return len(part)
        try:
            return part.stat().st_size if isinstance(part, Path) else part.size
        except OSError as failed:
            raise error(f"cannot read {part}: {files.reason(failed)}", code="unreadable") from None

    def _hash_new(self, block: bytes, position: int) -> None:
        new = block[max(self.hashed - position, 0) :]
        if not new:
            return
        self._settle()
        self._busy = self._thread.submit(self._hash.update, new)
        self.hashed += len(new)

    def _settle(self) -> None:
        if self._busy:
            self._busy.result()

    def _check(self) -> None:
        self._settle()
        if self.hashed < self.blob.size:
            return
        for part in self._parts:
            if not isinstance(part, bytes | Path):
                part.check()
        found = f"sha256:{self._hash.hexdigest()}"
        self.digest = self.digest or found
        if found != self.digest:
            self._refuse(f"gives {found}, and the image has {self.digest}")

    def _refuse(self, why: str) -> None:
        raise error(
            f"{self.blob.where} {why}: it is damaged (`nix-store --verify-path` tells), or another one than was pinned",
            code="digest-mismatch",
        )


class Upload:
    """What a registry has of a blob that it does not have whole: where the next bytes go, and how many are there."""

    def __init__(self, repository: Repository, answer: Answer) -> None:
        self._repository = repository
        self._location = ""
        self.offset = 0
        self.least = _count(answer.headers.get("OCI-Chunk-Min-Length"))
        self._move(answer)

    def append(self, content: Content, chunk: int, told: Callable[[int], object]) -> None:
        """Send the next bytes, at most `chunk`. Raises HttpError and AikitError."""
        count = min(max(chunk, self.least), content.blob.size - self.offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self.offset}-{self.offset + count - 1}",
        }
        answer = self._send("PATCH", self._location, content.blocks(self.offset, count, told), count, headers)
        self._move(answer)
        self.offset += count

    def finish(self, content: Content, told: Callable[[int], object] = lambda _: None) -> None:
        """Send the rest, if there is one, and let the registry close the blob. Raises HttpError and AikitError."""
        count = content.blob.size - self.offset
        if not content.digest:
            what = content.blob.what
            hint = "this registry asks for it beforehand: `aikit-nix fetch`, which learns it, then push again"
            raise error(f"{what}: only its bytes tell the layer's digest, and {hint}", code="registry")
        mark = "&" if "?" in self._location else "?"
        url = f"{self._location}{mark}digest={quote(content.digest, safe=':')}"
        headers = {"Content-Type": "application/octet-stream"}
        blocks = content.blocks(self.offset, count, told) if count else iter(())
        answer = self._send("PUT", url, blocks, count, headers)
        self._repository.agrees(answer.headers, content.digest)

    def ask(self) -> None:
        """Find out how much is there. Raises HttpError, also where the registry does not say."""
        answer = self._repository.asked(
            lambda login: self._repository.client.get(self._location, headers=self._own(self._location, login))
        )
        said = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", answer.headers.get("Range", ""))
        if not said:
            raise HttpError(Trouble.REFUSED, f"{self._repository} does not say how much of an upload is there")
        # `0-0` stands for nothing with most registries, and for one byte by the letter: begin at nothing.
        self.offset = int(said[1]) + 1 if int(said[1]) else 0
        self._move(answer)

    def cancel(self) -> None:
        """Let the registry forget it, if it can be told."""
        try:
            self._send("DELETE", self._location, iter(()), 0, {})
        except AikitError as problem:
            console.trace(f"the upload was not cancelled: {problem}")

    def _send(self, method: str, url: str, blocks: Iterator[bytes], size: int, headers: Mapping[str, str]) -> Answer:
        client, login = self._repository.client, self._repository.headers()
        answer = _CLOSING if method == "PUT" else None
        return client.send(method, url, blocks, size, headers={**headers, **self._own(url, login)}, answer=answer)

    def _own(self, url: str, login: Mapping[str, str]) -> Mapping[str, str]:
        """The login, for the registry itself and no other host."""
        return login if urlsplit(url)[:2] == urlsplit(self._repository.url(""))[:2] else {}

    def _move(self, answer: Answer) -> None:
        said = answer.headers.get("Location")
        if said is None:
            if self._location:
                return
            raise error(f"{self._repository} does not say where an upload goes", code="registry")
        self._location = self._repository.address(answer.url, said, "uploads")


def begin(repository: Repository) -> Upload:
    """Begin a new upload. Raises AikitError."""
    path = "blobs/uploads/"
    try:
        return Upload(repository, _post(repository, path))
    except HttpError as refused:
        raise repository.refused(refused, path) from None


def mount(repository: Repository, digest: str, source: str) -> Upload | None:
    """Let the registry take a blob from another of its repositories; None where it did, else an upload that it began.

    Raises AikitError.
    """
    path = f"blobs/uploads/?mount={quote(digest, safe=':')}&from={quote(source, safe='')}"
    try:
        answer = _post(repository, path)
    except HttpError as refused:
        if refused.status is None or refused.status >= 500:
            raise repository.refused(refused, path) from None
        return begin(repository)  # it may not be read from there, or not be mounted at all
    if answer.status == 201:
        repository.agrees(answer.headers, digest)
        return None
    return Upload(repository, answer)


def _post(repository: Repository, path: str) -> Answer:
    return repository.asked(lambda login: repository.client.post(repository.url(path), b"", headers=login))


def send(
    repository: Repository,
    blob: Blob,
    told: Callable[[int], object] = lambda _: None,
    *,
    begun: Upload | None = None,
    chunk: int = CHUNK,
) -> str:
    """Bring a blob into the repository, which has it whole afterwards, or not at all; its digest. Raises AikitError.

    `told` hears how many bytes were taken, and of less than nothing where they have to be sent again.
    """
    with Content(blob) as content:
        _Sending(repository, content, told, begun, chunk).run()
        return content.digest


class _Sending:
    """A blob until the registry has it: what is done about what goes wrong."""

    def __init__(
        self,
        repository: Repository,
        content: Content,
        told: Callable[[int], object],
        begun: Upload | None,
        chunk: int,
    ) -> None:
        self._repository = repository
        self._content = content
        self._size = content.blob.size
        self._path = f"blobs/{content.blob.digest or 'uploads/'}"
        self._told = told
        self._counted = 0  # bytes that `told` heard of
        self._upload = begun
        self._chunk = chunk
        self._whole = False  # in one request
        self._renewed_at = -1

    def run(self) -> None:
        tries = self._repository.client.tries()
        best = 0
        while True:
            try:
                self._upload = self._upload or begin(self._repository)
                return self._go_on(self._upload)
            except HttpError as problem:
                if self._reached > best:
                    best = self._reached
                    tries.progressed()
                if not self._simpler(problem) and not self._renewed(problem):
                    # The registry may have forgotten the upload, or have more or less of it than it said
                    problem.again |= problem.status in (400, 404, 416) and self._reached > 0
                    self._repository.wait(tries, problem, self._path)
                if self._is_there(problem):
                    return None
                self._take_up()
            except AikitError:
                if self._upload:
                    self._upload.cancel()
                raise

    def _go_on(self, upload: Upload) -> None:
        while not self._whole and upload.offset < self._size:
            upload.append(self._content, self._chunk, self._count)
        upload.finish(self._content, self._count)

    def _count(self, count: int) -> None:
        self._counted += count
        self._told(count)

    @property
    def _reached(self) -> int:
        """The bytes that the registry is known to have."""
        return self._upload.offset if self._upload else 0

    def _simpler(self, problem: HttpError) -> bool:
        """Whether the registry may take it in another way."""
        if problem.status == _TOO_LARGE and not self._whole and self._chunk > _LEAST_CHUNK:
            self._chunk = max(self._chunk // 4, _LEAST_CHUNK)
            return True
        if problem.status in _NO_CHUNKS and not self._whole and not self._reached:
            self._whole = True
            self._upload = None
            return True
        return False

    def _renewed(self, problem: HttpError) -> bool:
        """Whether the login was no longer taken, and there is a new one."""
        if problem.status != 401 or self._renewed_at == self._reached:
            return False
        self._renewed_at = self._reached
        return self._repository.authorize(problem)

    def _is_there(self, problem: HttpError) -> bool:
        """Whether only the answer got lost."""
        digest = self._content.digest
        return problem.trouble is not Trouble.STATUS and bool(digest) and self._repository.has(digest, self._size)

    def _take_up(self) -> None:
        """Go on where the registry says that it is; from the beginning where it does not."""
        if self._upload:
            try:
                self._upload.ask()
                if self._upload.offset > self._content.hashed or (self._whole and self._upload.offset):
                    self._upload = None
            except HttpError as problem:
                console.trace(f"begins again: {problem.message}")
                self._upload = None
        self._count(self._reached - self._counted)


def _count(said: str | None) -> int:
    return int(said) if said and re.fullmatch(r"\d{1,12}", said) else 0
