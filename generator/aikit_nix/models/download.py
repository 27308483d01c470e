"""Downloads that people can trust: resumable after a crash, hashed and checked while they stream, whole or not there."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, Diagnostic, Position, error
from aikit_nix.base.hashing import BLOCK, Digests, Frame, Hasher, hash_file
from aikit_nix.base.redact import blank, shown
from aikit_nix.http.client import Client, HttpError, Stream, Trouble
from aikit_nix.models.partial import Partial, State, check_space

# An attempt that wins this much is no failed one: what breaks every gigabyte still comes to an end.
_PROGRESS = 4 << 20
_RENEWALS = 3  # of credentials, at one point of the file: one that another thread has may be too old by now, too


@dataclass(frozen=True)
class Download:
    """A file to fetch: from where to where, and what is known of it. What is not known is found out."""

    url: str
    to: Path  # in a folder of our own: `X.part` and `X.state` lie beside it
    name: str  # as messages call it
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # credentials
    size: int | None = None
    sha256: str | None = None
    blake3: str | None = None
    layer_of: Callable[[int], Frame] | None = None  # for a size: its layer's digest is wanted
    # for an answer 401 to these headers: others; none where there are no others
    renew: Callable[[HttpError, Mapping[str, str]], Mapping[str, str]] = lambda _, before: {}
    at: Position | None = None  # where the user named it
    hint: Callable[[HttpError], str] = lambda _: ""  # what to do about a refusal, put after the message


@dataclass(frozen=True)
class Fetched:
    """A file that is whole, and was checked.

    `validator` tells this version of the file from others at its server: what If-Range takes, if there is such a thing.
    """

    download: Download
    file: Path
    digests: Digests
    validator: str = ""


@dataclass(frozen=True)
class Pace:
    """How slow a download may be, in bytes a window of seconds, before it is begun anew where it stands."""

    slowest: int = 64 << 10
    window: float = 60
    limit: int = 4 << 40  # bytes of a file whose size nobody states


def fetch_all(
    downloads: Sequence[Download],
    client: Client,
    *,
    jobs: int = 4,
    pace: Pace | None = None,
    then: Callable[[Fetched], object] = lambda _: None,
) -> list[Fetched]:
    """Fetch files, some at a time; `then` is called in the thread of each one that is whole.

    Where some fail, the others go on; then AikitError is raised with what happened to each. What is there stays, for
    the next time. After Ctrl-C too.
    """
    check_space((one.to, one.size or 0) for one in downloads)
    cancelled = threading.Event()
    fetched: list[Fetched] = []
    problems: list[Diagnostic] = []
    with console.progress(len(downloads), sum(one.size or 0 for one in downloads)) as progress:

        def work(download: Download) -> Fetched:
            with progress.file(download.name, download.size) as bar:
                return _Transfer(download, client, pace or Pace(), bar, cancelled).run(then)

        pool = ThreadPoolExecutor(max(1, jobs))
        try:
            for future in [pool.submit(work, one) for one in downloads]:
                try:
                    fetched.append(future.result())
                except AikitError as problem:
                    problems.extend(problem.diagnostics)
        except BaseException:
            cancelled.set()
            client.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if problems:
        raise AikitError(*problems)
    return fetched


class Credentials:
    """The headers of a download, and others where they are not taken any more: tokens of registries live for minutes."""

    def __init__(self, download: Download) -> None:
        self.headers = dict(download.headers)
        self._renew = download.renew
        self._renewals: Counter[int] = Counter()  # by the bytes that were there

    def renewed(self, problem: HttpError, at: int) -> bool:
        """Whether there are others to try, with `at` bytes there; not for ever where nothing is won by them."""
        if problem.status != 401 or self._renewals[at] >= _RENEWALS:
            return False
        self._renewals[at] += 1
        headers = self._renew(problem, self.headers)
        if not headers or headers == self.headers:
            return False
        self.headers = dict(headers)
        return True


class _Transfer:
    """One download on its way."""

    def __init__(
        self, download: Download, client: Client, pace: Pace, bar: console.Bar, cancelled: threading.Event
    ) -> None:
        self._download = download
        self._client = client
        self._pace = pace
        self._bar = bar
        self._cancelled = cancelled
        self._credentials = Credentials(download)
        self._total = download.size
        self._validator = ""
        self._hasher: Hasher | None = None
        self._inherited = False  # bytes of an earlier run are in it

    def run(self, then: Callable[[Fetched], object]) -> Fetched:
        """Raises AikitError that names the download."""
        download = self._download
        try:
            with Partial(download.to, self._wait_for_other) as partial:
                done = Fetched(download, download.to, self._fetch(partial), self._validator)
                then(done)  # still alone with the file, which may be thrown away now
                return done
        except HttpError as problem:
            message = f"{download.name}: {problem.message}{download.hint(problem)}"
            raise error(message, download.at, problem.code) from None
        except OSError as problem:
            reason = f"{problem.strerror or problem} ({shown(str(download.to.parent))})"
            raise error(f"{download.name}: cannot be written: {reason}", download.at, "file-write") from None
        finally:
            self._forget()

    def _fetch(self, partial: Partial) -> Digests:
        if partial.is_whole() and (digests := self._whole(partial)):
            return digests
        self._resume(partial)
        backoff = self._client.backoff()
        best = partial.size
        while True:
            try:
                if self._total is None or partial.size < self._total or self._total == 0:
                    self._receive(partial)
                digests = self._digests(partial)
                if self._is_right(digests, partial):
                    partial.finish()
                    return digests
            except HttpError as problem:
                if self._cancelled.is_set():
                    raise
                if self._credentials.renewed(problem, partial.size):
                    continue
                if partial.size >= best + _PROGRESS:
                    best = partial.size
                    backoff.progressed()
                backoff.failed(problem)
                if not self._resumable():
                    self._restart(partial)

    def _wait_for_other(self) -> None:
        if self._cancelled.is_set():
            raise HttpError(Trouble.INTERRUPTED, "interrupted")
        self._bar.note("waits: another process downloads it")

    def _whole(self, partial: Partial) -> Digests | None:
        """The file of an earlier run, where it is the right one; where nobody can tell, the server is asked."""
        download = self._download
        if not (download.sha256 or download.blake3):
            partial.reopen()
            return None
        size = download.to.stat().st_size
        if download.size not in (None, size):
            return None
        digests = hash_file(download.to, download.layer_of, lambda block: self._bar.found(len(block)))
        return digests if self._wrong(digests) is None else None

    def _resume(self, partial: Partial) -> None:
        """Hash what an earlier run left."""
        state, download = partial.state, self._download
        good = partial.known_good(checked=self._checked())
        if state and (state.address == self._address() or self._checked()):
            if state.address == self._address():
                self._validator = state.validator
            if self._total is None:
                self._total = state.size
            if state.size != self._total or not self._resumable() or (self._total is not None and good > self._total):
                good = 0
            elif not self._checked():
                good = max(0, good - 1)  # at least a byte to ask for, so that the server says whether it is the same
        else:
            good = 0
        if good == 0:
            self._total, self._validator = download.size, ""
            partial.cut(0)
            return
        partial.cut(good)
        self._inherited = True
        self._hasher = self._new_hasher()
        for block in partial.blocks():
            self._take(block)
            self._bar.found(len(block))

    def _receive(self, partial: Partial) -> None:
        """One attempt at the rest of the file."""
        headers = dict(self._credentials.headers)
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
            if self._validator:
                headers["If-Range"] = self._validator
        try:
            with self._client.stream(self._download.url, headers=headers) as answer:
                if partial.size == 0 or not self._continues(answer, partial.size):
                    if answer.status == 206:
                        # A part that is not the one that we asked for.
                        self._restart(partial)
                        raise HttpError(Trouble.INTERRUPTED, f"{self._where()} changed meanwhile", again=True)
                    self._begin(answer, partial)
                self._receive_blocks(answer, partial)
        except HttpError as problem:
            if problem.status == 416 and partial.size:
                self._restart(partial)
                raise HttpError(Trouble.INTERRUPTED, f"{self._where()} changed meanwhile", again=True) from None
            raise
        if self._total is None:
            self._total = partial.size
        elif partial.size < self._total:
            message = f"{self._where()} ended after {partial.size:,} of {self._total:,} bytes"
            raise HttpError(Trouble.INTERRUPTED, message, again=True)

    def _continues(self, answer: Stream, at: int) -> bool:
        """Whether an answer is the rest of the file from a byte on."""
        begins, size = answer.place()
        if answer.status != 206 or begins != at:
            return False
        if size is not None:
            if self._total is None:
                self._total = size
            if size != self._total:
                return False
        said_now = validator(answer.headers)
        return not (self._validator and said_now and said_now != self._validator)

    def _begin(self, answer: Stream, partial: Partial) -> None:
        """The file comes from its first byte on."""
        _, stated = answer.place()
        expected = self._download.size
        if expected is not None and stated not in (None, expected):
            message = f"{self._where()} has {stated:,} bytes, and must have {expected:,}: it is another file"
            raise HttpError(Trouble.REFUSED, message)
        self._forget()
        self._total = stated if expected is None else expected
        self._validator = validator(answer.headers)
        self._inherited = False
        partial.begin(State(self._address(), self._validator, self._total))
        check_space([(self._download.to, self._total or 0)])
        self._hasher = self._new_hasher()
        self._bar.restart(self._total)

    def _receive_blocks(self, answer: Stream, partial: Partial) -> None:
        most = self._pace.limit if self._total is None else self._total
        for block in gathered(answer.blocks(self._pace.slowest, self._pace.window)):
            if partial.size + len(block) > most:
                partial.discard()
                raise HttpError(Trouble.TOO_LONG, f"{self._where()} sends more than {most:,} bytes: thrown away")
            partial.append(block)
            self._take(block)
            self._bar.advance(len(block))
            if self._cancelled.is_set():
                raise HttpError(Trouble.INTERRUPTED, "interrupted")

    def _take(self, block: bytes) -> None:
        if self._hasher:
            self._hasher.update(block)

    def _digests(self, partial: Partial) -> Digests:
        hasher = self._hasher or self._new_hasher()
        self._hasher = None
        digests = hasher.digests()
        if self._download.layer_of and not digests.layer:
            # No size was stated before the first byte, so that the layer's hash could not begin: read all again.
            hasher = self._new_hasher()
            for block in partial.blocks():
                hasher.update(block)
            digests = hasher.digests()
        return digests

    def _is_right(self, digests: Digests, partial: Partial) -> bool:
        """False where the bytes of an earlier run may be to blame: then all is fetched again, once."""
        if (wrong := self._wrong(digests)) is None:
            return True
        inherited = self._inherited
        self._restart(partial)
        if inherited:
            self._bar.note("what an earlier run left is damaged: fetched again")
            return False
        partial.discard()
        raise HttpError(Trouble.REFUSED, f"{self._where()} {wrong}: thrown away; it is not the file that is meant")

    def _wrong(self, digests: Digests) -> str | None:
        download = self._download
        if download.sha256 and digests.sha256 != download.sha256:
            return f"has the sha256 {digests.sha256}, and must have {download.sha256}"
        if download.blake3 and digests.blake3 != download.blake3:
            return f"has the BLAKE3 {digests.blake3}, and must have {download.blake3}"
        return None

    def _checked(self) -> bool:
        """Whether a hash will show at the end that all bytes are of one file."""
        return bool(self._download.sha256 or self._download.blake3)

    def _resumable(self) -> bool:
        return self._checked() or bool(self._validator)

    def _restart(self, partial: Partial) -> None:
        self._forget()
        self._inherited = False
        self._total, self._validator = self._download.size, ""
        partial.cut(0)
        self._bar.restart(self._total)

    def _new_hasher(self) -> Hasher:
        size, download = self._total, self._download
        return Hasher(download.layer_of(size) if download.layer_of and size is not None else None)

    def _forget(self) -> None:
        """What took the bytes forgets them."""
        if self._hasher:
            self._hasher.close()
        self._hasher = None

    def _address(self) -> str:
        return sha256(self._download.url.encode(errors="surrogateescape")).hexdigest()

    def _where(self) -> str:
        return blank(self._download.url)


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
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
