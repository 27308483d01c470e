"""The one HTTP client: patient, bounded, and careful with credentials.

On httpx2, which keeps connections and speaks with proxies. What it does not do is here: retries, an end for answers that
never end, redirects that carry no credentials to another host.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aikit_nix.base import console
from aikit_nix.base.redact import blank, shown
from aikit_nix.http import address as http_address
from aikit_nix.http.connection import Connection, Deadline, HttpError, Timeouts, Trouble, speaks_tls, troubles

if TYPE_CHECKING:
    import httpx2

__all__ = ["Answer", "Backoff", "Client", "HttpError", "Stream", "Timeouts", "Trouble"]

ANSWER_LIMIT = 32 << 20  # bytes of a small answer, where the caller does not say

_REDIRECTS = 10
_REFUSAL_LIMIT = 16 << 10  # bytes kept of what a server says with a refusal
_WITH_CONTENT = (200, 203, 206)  # else an empty answer, as of 204 or 304, would be taken for the file


@dataclass(frozen=True)
class Answer:
    """A whole answer. `url` is where it came from after redirects: `blank` it before it is shown."""

    url: str
    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises HttpError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise HttpError(Trouble.REFUSED, f"{blank(self.url)} answered with something that is no JSON") from None


class Backoff:
    """Counts the attempts at one thing, and waits between them."""

    def __init__(self, timeouts: Timeouts, sleep: Callable[[float], object]) -> None:
        self._timeouts = timeouts
        self._sleep = sleep
        self._failed = 0

    def failed(self, problem: HttpError) -> None:
        """Wait before the next attempt; raises the problem where there is no sense in one."""
        self._failed += 1
        if not problem.again or self._failed >= self._timeouts.attempts:
            raise problem
        wait = self._timeouts.first_wait * 2 ** (self._failed - 1)
        wait = min(max(wait, _wanted_wait(problem.headers)), self._timeouts.longest_wait)
        console.trace(f"waiting {wait:g} s: {problem.message}")
        self._sleep(wait)

    def progressed(self) -> None:
        """Something was won since the last failure: count from the beginning."""
        self._failed = 0


class Client:
    """Sends requests; may be used from several threads. Every method raises HttpError."""

    def __init__(
        self,
        timeouts: Timeouts | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """`sleep` is how it waits: by default a wait that `abort` ends."""
        self.timeouts = timeouts or Timeouts()
        self._unverified: set[tuple[str, int]] = set()
        self._aborted = threading.Event()
        self._sleep = sleep or self._aborted.wait
        self._own = threading.local()
        self._connections: list[Connection] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            connections, self._connections, self._own = self._connections, [], threading.local()
        for connection in connections:
            connection.close()

    @property
    def is_aborted(self) -> bool:
        """Whether nothing new is to begin."""
        return self._aborted.is_set()

    def abort(self) -> None:
        """Break off what other threads are reading, and let them begin nothing new: for Ctrl-C."""
        self._aborted.set()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.shut()

    def speaks_tls(self, host: str, port: int) -> bool:
        """Whether a server on this machine speaks TLS. From then on its certificate, which nobody may have signed, is not asked for."""
        if not speaks_tls(host, port, self.timeouts):
            return False
        self._unverified.add((host, port))
        return True

    def backoff(self) -> Backoff:
        """For a caller that repeats something itself."""
        return Backoff(self.timeouts, self._sleep)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None, limit: int = ANSWER_LIMIT) -> Answer:
        """A small answer, whole. Raises also for a status of 400 or more, and more than `limit` bytes."""
        return self._retried("GET", url, headers, limit=limit)

    def head(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """What the server of `url` says about it; a redirect to another host is the answer, and is not followed.

        So Hugging Face's X-Linked-Etag and X-Repo-Commit are seen, which the host with the bytes does not know.
        """
        return self._retried("HEAD", url, headers)

    def post(self, url: str, content: bytes, *, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to a question that does not fit into an address. Only what may be asked twice: it is retried."""
        return self._retried("POST", url, headers, content)

    def send(
        self,
        method: str,
        url: str,
        blocks: Iterable[bytes] = (),
        size: int = 0,
        *,
        headers: Mapping[str, str] | None = None,
        answer: float | None = None,
    ) -> Answer:
        """Send `size` bytes as they are made; the small answer. One attempt: only the caller can ask how much arrived.

        It breaks off (SLOW) when a block is not taken in the time for an answer, or no answer came `answer` seconds
        after the last one; the time in which a block is made does not count. Redirects are not followed. What `blocks`
        raises (no OSError: that would be the connection's) ends the request before its body is whole.
        """

        def watched(deadline: Deadline) -> Iterator[bytes]:
            deadline.rests = True
            for block in blocks:
                deadline.until(self.timeouts.answer)
                deadline.rests = False
                yield block
                deadline.rests = True
            deadline.until(answer or self.timeouts.answer)
            deadline.rests = False

        sized = {**(headers or {}), "Content-Length": str(size)}
        with self._exchange(method, url, sized, watched, read=max(self.timeouts.read, answer or 0)) as stream:
            return Answer(stream.url, stream.status, stream.headers, stream.whole(ANSWER_LIMIT))

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Iterator[Stream]:
        """A large answer as it comes, to a POST where there is `content`; one attempt, since what to do after half of it
        only the caller knows.

        Raises HttpError for a status that comes without what was asked for, and from the caller's reading where the answer
        breaks off.
        """
        with self._exchange("GET" if content is None else "POST", url, headers or {}, content) as answer:
            if answer.status not in _WITH_CONTENT:
                message = f"{blank(answer.url)} answered {answer.status}, without a file"
                raise HttpError(Trouble.REFUSED, message, status=answer.status)
            yield answer

    def _retried(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | None = None,
        *,
        limit: int = ANSWER_LIMIT,
    ) -> Answer:
        backoff = self.backoff()
        while True:
            try:
                with self._exchange(method, url, headers or {}, content) as answer:
                    body = b"" if method == "HEAD" else answer.whole(limit)
                    return Answer(answer.url, answer.status, answer.headers, body)
            except HttpError as problem:
                if problem.trouble is Trouble.SLOW:
                    raise  # it took its whole time already
                backoff.failed(problem)

    @contextmanager
    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | Callable[[Deadline], Iterator[bytes]] | None = None,
        *,
        read: float | None = None,
    ) -> Iterator[Stream]:
        """One attempt: the answer after all redirects (for HEAD on the first host), its body not read yet.

        What cannot be made again is redirected nowhere, and a question to no other host. `read` are seconds without a byte.
        """
        connection = self._connection()
        # identity: a few kB of gzip in gzip unpack to gigabytes
        address, sent = http_address.prepared(url, {"Accept-Encoding": "identity", **headers})
        for _ in range(_REDIRECTS + 1):
            where = blank(str(address))
            with Deadline(connection, self.timeouts.answer) as deadline:
                with troubles(address, deadline, self.timeouts):
                    body = content(deadline) if callable(content) else content
                    response = connection.send(method, address, sent, body, read)
                try:
                    console.trace(f"{method} {where} -> {response.status_code}")
                    target = http_address.redirected(response)
                    leaves = target is not None and not http_address.same_origin(target, address)
                    if target is None or (method == "HEAD" and leaves):
                        with troubles(address, deadline, self.timeouts):
                            _refuse_status(response)
                        yield Stream(response, deadline, self.timeouts)
                        return
                finally:
                    response.close()
            to = blank(str(target))
            if callable(content) or (content is not None and leaves):
                raise HttpError(Trouble.REFUSED, f"{where} redirects what is sent to {to}")
            # A hash may be learned from the answer
            if leaves and address.scheme == "https" and target.scheme == "http":
                raise HttpError(Trouble.REFUSED, f"{where} redirects to {to}, which is not encrypted")
            if leaves:
                sent = http_address.harmless(sent)
            address = target.copy_with(username=None, password=None) if target.userinfo else target
        raise HttpError(Trouble.REFUSED, f"{blank(url)} redirects more than {_REDIRECTS} times")

    def _connection(self) -> Connection:
        if self.is_aborted:
            raise HttpError(Trouble.INTERRUPTED, "interrupted")
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = Connection(self.timeouts, self._unverified)
            with self._lock:
                self._connections.append(connection)
        return connection


class Stream:
    """A large answer that is being read."""

    def __init__(self, response: httpx2.Response, deadline: Deadline, timeouts: Timeouts) -> None:
        self._response = response
        self._deadline = deadline
        self._timeouts = timeouts
        self.url = str(response.url)  # where it comes from, after redirects: it may hold secrets
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def place(self) -> tuple[int | None, int | None]:
        """Where in its file the body begins, and how long the file is, in bytes; None for what no number says."""
        if self.status == 206:
            part = r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)"
            said = re.fullmatch(part, self.headers.get("Content-Range", "").strip())
            return (int(said[1]), None if said[2] == "*" else int(said[2])) if said else (None, None)
        length = self.headers.get("Content-Length", "")
        return 0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None

    def blocks(self, slowest: int, window: float) -> Iterator[bytes]:
        """The body in pieces as they come. It breaks off (SLOW) when fewer than `slowest` bytes came in `window` s."""
        self._deadline.until(window)
        came = 0
        with troubles(self._response.url, self._deadline, self._timeouts):
            for block in self._response.iter_raw():
                came += len(block)
                if came >= slowest:
                    self._deadline.until(window)
                    came = 0
                yield block

    def whole(self, limit: int) -> bytes:
        """The body of a small answer."""
        with troubles(self._response.url, self._deadline, self._timeouts):
            body = _read(self._response, limit)
        if len(body) > limit:
            raise HttpError(Trouble.TOO_LONG, f"{blank(self.url)} answered with more than {limit:,} bytes")
        return body


def _refuse_status(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    status = response.status_code
    again = status in (408, 425, 429) or (status >= 500 and status not in (501, 505))
    body = _read(response, _REFUSAL_LIMIT)[:_REFUSAL_LIMIT] if response.request.method != "HEAD" else b""
    message = f"{blank(str(response.url))} answered {status} {shown(response.reason_phrase)}".rstrip()
    raise HttpError(Trouble.STATUS, message, status=status, headers=response.headers, body=body, again=again)


def _read(response: httpx2.Response, limit: int) -> bytes:
    """The body, up to a block more than `limit`; unpacked where the server packed it though we did not ask for that."""
    import zlib

    blocks, size = [], 0
    for block in response.iter_raw():
        blocks.append(block)
        size += len(block)
        if size > limit:
            break
    body = b"".join(blocks)
    if response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate") and size <= limit:
        try:
            body = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, limit + 1)
        except zlib.error:
            raise HttpError(Trouble.INTERRUPTED, f"{blank(str(response.url))} is packed badly", again=True) from None
    return body


def _wanted_wait(headers: Mapping[str, str]) -> float:
    """The seconds that a refusal asks us to wait: Retry-After (seconds or a date), or Hugging Face's RateLimit."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    said = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", said):
        return int(said)
    if said:
        try:
            date = parsedate_to_datetime(said)
            return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
        except (ValueError, OverflowError):
            return 0
    # https://huggingface.co/docs/hub/rate-limits: "api";r=0;t=55
    left = re.search(r";\s*t=([0-9]{1,6})", headers.get("RateLimit", ""))
    return int(left[1]) if left else 0
