"""A file server on loopback for tests of downloads: ranges, failures on demand, a record of requests."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it came: `headers` with lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """How to fail: answer with `status`, or send `cut` bytes of the body and drop the connection."""

    status: int | None = None
    cut: int | None = None


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
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str) -> int:
        """How many requests came for this path, HEAD included."""
        return Counter(request.path for request in self.requests)[path]


@contextmanager
def serve(files: Mapping[str, bytes] | None = None) -> Iterator[FileServer]:
    """A running FileServer on a free port of 127.0.0.1."""
    state = FileServer(files=dict(files or {}))

    class Handler(_Handler):
        server_state = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[FileServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        state, path = self.server_state, unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with state.lock:
            state.requests.append(Request(self.command, path, headers))
            waiting = state.failures.get(path)
            failure = waiting.pop(0) if waiting else None
        if failure and failure.status:
            return self._empty(failure.status)
        if path in state.redirects:
            return self._empty(302, Location=state.redirects[path])
        if path not in state.files:
            return self._empty(404)

        data, status = state.files[path], 200
        extra = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if state.ranges:
            extra["Accept-Ranges"] = "bytes"
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
            if wanted and headers.get("if-range", extra["ETag"]) == extra["ETag"]:
                start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
                if start > end:
                    return self._empty(416, **{"Content-Range": f"bytes */{len(data)}"})
                extra["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data, status = data[start : end + 1], 206
        self._head(status, len(data), extra)
        if body and failure and failure.cut is not None:
            self.wfile.write(data[: failure.cut])
            self.close_connection = True
        elif body:
            self.wfile.write(data)
        return None

    def _empty(self, status: int, **headers: str) -> None:
        self._head(status, 0, headers)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
