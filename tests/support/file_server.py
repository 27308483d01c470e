"""A file server on loopback for tests of downloads: ranges, failures on demand, a record of requests."""

from __future__ import annotations

import hashlib
import re
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it came: `headers` with lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Failure:
    """How to fail, each alone or together where that has a meaning."""

    status: int | None = None  # answer with this status
    headers: Mapping[str, str] = field(default_factory=dict)  # added to the answer
    cut: int | None = None  # drop the connection after so many bytes of the body
    drip: float | None = None  # one byte each so many seconds
    length: int | None = None  # state this length, whatever the body's is
    endless: bool = False  # the file again and again, without a length
    raw: bytes | None = None  # these bytes in place of an answer
    flood: bytes | None = None  # these bytes again and again in place of an answer


@dataclass
class FileServer:
    """What the server serves and saw. All of it may be changed while it runs.

    `files` maps a path (`/dir/model.gguf`, decoded) to its bytes, `redirects` to where to go instead;
    `failures` holds for a path what its next requests meet: when the list is used up, the file is served.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True  # False: ranges are given whatever If-Range says
    validators: bool = True  # ETag
    lengths: bool = True  # Content-Length; without it the end of the connection is the end of the file
    rate: int | None = None  # bytes a second of each answer
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str) -> int:
        """How many requests came for this path, HEAD included."""
        return Counter(request.path for request in self.requests)[path]


@contextmanager
def serve(
    files: Mapping[str, bytes] | None = None, certificate: tuple[Path, Path] | None = None
) -> Iterator[FileServer]:
    """A running FileServer on a free port of 127.0.0.1; over TLS with a certificate and its key."""
    state = FileServer(files=dict(files or {}))

    class Handler(_Handler):
        server_state = state

    with _Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # the handshake is the handler thread's, not the accepting one's
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        state.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an endless answer may be under way
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # whoever asked hung up
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[FileServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._answer(body=True)

    def do_PUT(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        state, path = self.server_state, unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = self.rfile.read(int(headers.get("content-length", 0)))
        with state.lock:
            state.requests.append(Request(self.command, path, headers, content))
            waiting = state.failures.get(path)
            failure = waiting.pop(0) if waiting else None
        failure = failure or Failure()
        if failure.raw is not None or failure.flood is not None:
            self.close_connection = True
            self.wfile.write(failure.raw or b"")
            while failure.flood:
                self.wfile.write(failure.flood)
            return None
        if failure.status:
            return self._empty(failure.status, **failure.headers)
        if path in state.redirects:
            return self._empty(302, Location=state.redirects[path])
        if path not in state.files:
            return self._empty(404)

        data, status = state.files[path], 200
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        extra = {"ETag": etag} if state.validators else {}
        if state.ranges:
            extra["Accept-Ranges"] = "bytes"
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
            if wanted and (not state.if_range or headers.get("if-range", etag) == etag):
                start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
                if start > end:
                    return self._empty(416, **{"Content-Range": f"bytes */{len(data)}"})
                extra["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data, status = data[start : end + 1], 206
        length = len(data) if failure.length is None else failure.length
        self._head(status, length if state.lengths and not failure.endless else None, extra | dict(failure.headers))
        if body:
            self._body(data, failure)
        return None

    def _body(self, data: bytes, failure: Failure) -> None:
        block = 1 if failure.drip else 1 << 16
        pause = failure.drip or (block / self.server_state.rate if self.server_state.rate else 0)
        data = data[: failure.cut]
        while True:
            for at in range(0, len(data), block):
                self.wfile.write(data[at : at + block])
                if pause:
                    time.sleep(pause)
            if not failure.endless:
                break
        if failure.cut is not None:
            self.close_connection = True

    def _empty(self, status: int, **headers: str) -> None:
        self._head(status, 0, headers)

    def _head(self, status: int, length: int | None, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is None:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
