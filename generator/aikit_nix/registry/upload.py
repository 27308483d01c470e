"""One blob on its way into a repository, from wherever its bytes lie: in chunks, taken up again where a connection broke.

Source: the OCI distribution specification 1.1, "Push". Registries differ in what they take, so what one refuses is tried
in the next simpler way: the whole blob in one request (Google's takes no second chunk), then smaller chunks (GitHub's takes 4 MiB).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, error
from aikit_nix.http.client import Answer, Backoff, HttpError, Trouble
from aikit_nix.registry.blob import Blob, Content
from aikit_nix.registry.client import Repository

CHUNK = 64 << 20  # bytes of one request
_LEAST_CHUNK = 256 << 10
_MUCH, _MOST_LOST = 4 << 20, 20  # bytes, and how often so many may be sent in vain
_CLOSING = 900.0  # seconds: a registry may read a large blob again, or copy it, before it answers
_TOO_LARGE = 413


class Upload:
    """What a registry has of a blob that it does not have whole: where the next bytes go, and how many are there."""

    def __init__(self, repository: Repository, answer: Answer) -> None:
        self._repository = repository
        self._location = ""
        self.offset = 0
        self.wants_login = False
        self.least = _count(answer.headers.get("OCI-Chunk-Min-Length"))
        self._move(answer)

    def append(self, content: Content, chunk: int, on_progress: Callable[[int], object]) -> None:
        """Send the next bytes, at most `chunk`. Raises HttpError and AikitError."""
        count = min(max(chunk, self.least), content.blob.size - self.offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self.offset}-{self.offset + count - 1}",
        }
        answer = self._send("PATCH", self._location, content.blocks(self.offset, count, on_progress), count, headers)
        self._move(answer)
        self.offset += count

    def finish(self, content: Content, on_progress: Callable[[int], object] = lambda _: None) -> None:
        """Send the rest, if there is one, and let the registry close the blob. Raises HttpError and AikitError."""
        count = content.blob.size - self.offset
        if not content.digest:
            what = content.blob.what
            hint = "this registry asks for it beforehand: `aikit-nix fetch`, which learns it, then push again"
            raise error(f"{what}: only its bytes tell the layer's digest, and {hint}", code="registry")
        mark = "&" if "?" in self._location else "?"
        url = f"{self._location}{mark}digest={quote(content.digest, safe=':')}"
        headers = {"Content-Type": "application/octet-stream"}
        blocks = content.blocks(self.offset, count, on_progress) if count else iter(())
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
        """Let the registry forget the upload, where it hears of it: it goes by itself in time."""
        try:
            self._send("DELETE", self._location, iter(()), 0, {})
        except AikitError as problem:
            console.trace(f"the upload was not cancelled: {problem}")

    def _send(self, method: str, url: str, blocks: Iterator[bytes], size: int, headers: Mapping[str, str]) -> Answer:
        client, login = self._repository.client, self._repository.headers()
        answer = _CLOSING if method == "PUT" else None
        try:
            return client.send(method, url, blocks, size, headers={**headers, **self._own(url, login)}, answer=answer)
        except HttpError as refused:
            self.wants_login |= refused.status == 401
            raise

    def _own(self, url: str, login: Mapping[str, str]) -> Mapping[str, str]:
        """The login, for the registry itself and no other host; on another port of it where that asked for one."""
        there, own = urlsplit(url), urlsplit(self._repository.url(""))
        return login if there[:2] == own[:2] or (self.wants_login and there.hostname == own.hostname) else {}

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
        if refused.status is None:
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
    on_progress: Callable[[int], object] = lambda _: None,
    *,
    begun: Upload | None = None,
    chunk: int = CHUNK,
) -> str:
    """Bring a blob into the repository, which has it whole afterwards, or not at all; its digest. Raises AikitError.

    `on_progress` hears how many bytes were taken, and of less than nothing where they have to be sent again.
    """
    with Content(blob) as content:
        _Sending(repository, content, on_progress, begun, chunk).run()
        return content.digest


class _Sending:
    """A blob until the registry has it: what is done about what goes wrong."""

    def __init__(
        self,
        repository: Repository,
        content: Content,
        on_progress: Callable[[int], object],
        begun: Upload | None,
        chunk: int,
    ) -> None:
        self._repository = repository
        self._content = content
        self._size = content.blob.size
        self._path = f"blobs/{content.blob.digest or 'uploads/'}"
        self._on_progress = on_progress
        self._counted = 0  # bytes that `on_progress` heard of
        self._upload = begun
        self._chunk = chunk
        self._whole = self._tried_whole = False  # in one request
        self._refused_at = 0  # bytes
        self._renewed_at = -1

    def run(self) -> None:
        backoff = self._repository.client.backoff()
        best = lost = 0
        while True:
            before = self._counted
            try:
                self._upload = self._upload or begin(self._repository)
                return self._go_on(self._upload)
            except HttpError as problem:
                if self._reached > best:
                    best = self._reached
                    backoff.progressed()
                elif problem.status is None and self._counted - before >= _MUCH and lost < _MOST_LOST:
                    # Debian's registry forgets an upload whose connection breaks
                    lost += 1
                    backoff.progressed()
                if not self._simpler(problem) and not self._renewed(problem):
                    self._wait(backoff, problem)
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
        self._on_progress(count)

    @property
    def _reached(self) -> int:
        """The bytes that the registry is known to have."""
        return self._upload.offset if self._upload else 0

    def _simpler(self, problem: HttpError) -> bool:
        """Whether the registry may take it in another way, which is the next one to try."""
        under_way = 0 < self._reached < self._size
        if problem.status in (None, 401) or problem.again or (problem.status == 403 and not under_way):
            return False
        if problem.status == _TOO_LARGE:
            return self._next(whole=False)
        if self._reached and self._reached != self._refused_at:
            # The registry may have forgotten the upload, or have more or less of it than it said: ask it, once
            self._refused_at = self._reached
            problem.again = True
            return False
        return self._next(whole=True)

    def _next(self, *, whole: bool) -> bool:
        """The whole blob, or smaller chunks than what was refused; the other where there is no more of the one."""
        refused = min(self._chunk, self._size)
        chunk = self._chunk
        while chunk >= refused and chunk > _LEAST_CHUNK:
            chunk = max(chunk // 4, _LEAST_CHUNK)
        smaller = chunk < refused
        if self._tried_whole and not smaller:
            return False
        if self._whole:
            self._upload = None
        # without a digest there is nothing to close a blob in one request with, which then is said
        self._whole = not smaller or (whole and not self._tried_whole and bool(self._content.digest))
        if self._whole:
            self._tried_whole = True
            self._upload = None
        else:
            self._chunk = chunk
        return True

    def _wait(self, backoff: Backoff, problem: HttpError) -> None:
        """Before the next attempt; after the last one it is tried another way: smaller requests may end before a proxy gives up."""
        try:
            backoff.failed(problem)
        except HttpError:
            if not problem.again or not self._next(whole=self._reached > 0):
                raise self._repository.refused(problem, self._path) from None
            backoff.progressed()

    def _renewed(self, problem: HttpError) -> bool:
        """Whether the login was no longer taken, and there is a new one."""
        if problem.status != 401 or self._renewed_at == self._reached:
            return False
        self._renewed_at = self._reached
        return self._repository.authorize(problem) or bool(self._upload and self._upload.wants_login)

    def _is_there(self, problem: HttpError) -> bool:
        """Whether only the answer got lost, or somebody else brought it meanwhile."""
        if problem.trouble is Trouble.STATUS and self._reached < self._size:
            return False
        digest = self._content.digest
        return bool(digest) and self._repository.has(digest, self._size)

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
