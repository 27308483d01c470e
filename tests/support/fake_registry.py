"""A registry in a few lines, for what Debian's does not do: strict chunks, tokens that expire, lies."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit


@dataclass
class FakeRegistry:
    """What it has and how it behaves. All of it may be changed while it runs."""

    address: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by repository and digest
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by repository and tag or digest
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # "METHOD path", without the query
    scopes: list[list[str]] = field(default_factory=list)  # of the tokens that were asked for

    token_life: int | None = None  # requests that a token is good for; None: no login is asked for
    cuts: list[int] = field(default_factory=list)  # bytes of a PATCH or PUT after which the next one is cut
    ranges: bool = True  # says how much of an upload is there
    chunks: bool = True  # takes PATCH
    largest: int | None = None  # bytes of one request: more are 413
    least: int | None = None  # bytes of a chunk that is not the last, said in OCI-Chunk-Min-Length
    referrers: bool = False  # knows what refers to a manifest
    lie: str | None = None  # the digest that it says of every blob and manifest
    lose_answer: bool = False  # hangs up in place of the next answer to a PUT

    lock: threading.Lock = field(default_factory=threading.Lock)
    tokens: dict[str, int] = field(default_factory=dict)

    def count(self, method: str, pattern: str = "") -> int:
        """How many requests there were of a method, to a path that the pattern is found in."""
        return sum(bool(re.match(f"{method} .*{pattern}", request)) for request in self.requests)


@contextmanager
def serve() -> Iterator[FakeRegistry]:
    """A running FakeRegistry on a free port of loopback."""
    state = FakeRegistry()

    class Handler(_Handler):
        registry = state

    with _Server(("127.0.0.1", 0), Handler) as server:
        state.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    registry: ClassVar[FakeRegistry]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        address = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        with self.registry.lock:
            self.registry.requests.append(f"{self.command} {address.path}")
        if address.path == "/token":
            return self._token(parse_qs(address.query).get("scope", []))
        if not self._authorized():
            self.close_connection = True  # as Go's servers do, without reading what is sent
            challenge = f'Bearer realm="http://{self.registry.address}/token",service="fake"'
            return self._answer(401, {"WWW-Authenticate": challenge})
        if address.path == "/v2/":
            return self._answer(200)
        if self.registry.referrers and (asked := re.fullmatch(r"/v2/(.+)/referrers/([^/]*)", address.path)):
            return self._refer(*asked.groups())
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests)/([^/]*)", address.path)
        if not found:
            return self._answer(404)
        repository, kind, name = found.groups()
        match kind, self.command:
            case "blobs/uploads", "POST":
                self._begin(repository)
            case "blobs/uploads", _:
                self._upload(repository, name)
            case "blobs", _:
                self._give(self.registry.blobs.get((repository, name)), name)
            case "manifests", "PUT":
                self._publish(repository, name)
            case _:
                data = self.registry.manifests.get((repository, name))
                self._give(data, _digest(data or b""))
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 (http.server's names)

    def _token(self, scopes: list[str]) -> None:
        token = uuid.uuid4().hex
        with self.registry.lock:
            self.registry.scopes.append(scopes)
            self.registry.tokens[token] = self.registry.token_life or 0
        self._answer(200, body=json.dumps({"token": token}).encode())

    def _authorized(self) -> bool:
        if self.registry.token_life is None:
            return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.registry.lock:
            left = self.registry.tokens.get(token, 0)
            self.registry.tokens[token] = left - 1
        return left > 0

    def _refer(self, repository: str, subject: str) -> None:
        entries = [
            {"digest": _digest(data), "artifactType": json.loads(data)["artifactType"]}
            for (name, reference), data in self.registry.manifests.items()
            if name == repository and reference == _digest(data)
            if json.loads(data).get("subject", {}).get("digest") == subject
        ]
        self._answer(200, body=json.dumps({"schemaVersion": 2, "manifests": entries}).encode())

    def _begin(self, repository: str) -> None:
        digest, source = self.query.get("mount", ""), self.query.get("from", "")
        if (data := self.registry.blobs.get((source, digest))) is not None:
            self.registry.blobs[repository, digest] = data
            return self._answer(201, {"Docker-Content-Digest": self.registry.lie or digest})
        name = uuid.uuid4().hex
        self.registry.uploads[name] = bytearray()
        return self._where(202, repository, name)

    def _upload(self, repository: str, name: str) -> None:
        upload = self.registry.uploads.get(name)
        length = int(self.headers.get("Content-Length", 0))
        if upload is None:
            return self._refuse(404)
        if self.command == "DELETE":
            del self.registry.uploads[name]
            return self._answer(204)
        if self.command == "GET":
            return self._where(204, repository, name) if self.registry.ranges else self._refuse(404)
        if self.registry.largest and length > self.registry.largest:
            return self._refuse(413)
        if self.command == "PATCH":
            if not self.registry.chunks:
                return self._refuse(405)
            if self.headers.get("Content-Range") != f"{len(upload)}-{len(upload) + length - 1}":
                return self._refuse(416)
        cut = self.registry.cuts.pop(0) if self.registry.cuts and length else None
        upload += self.rfile.read(length if cut is None else min(cut, length))
        if cut is not None:
            self.close_connection = True
            return None
        if self.command == "PATCH":
            return self._where(202, repository, name)
        if self.query.get("digest") != _digest(upload):
            return self._refuse(400)
        self.registry.blobs[repository, _digest(upload)] = bytes(upload)
        del self.registry.uploads[name]
        if self.registry.lose_answer:
            self.registry.lose_answer = False
            self.close_connection = True
            return None
        return self._answer(201, {"Docker-Content-Digest": self.registry.lie or _digest(upload)})

    def _publish(self, repository: str, name: str) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        content = json.loads(data)
        for blob in [content["config"], *content["layers"]] if "config" in content else []:  # an index has none
            if (repository, blob["digest"]) not in self.registry.blobs:
                return self._refuse(400)
        for key in (name, _digest(data)):
            self.registry.manifests[repository, key] = data
        return self._answer(201, {"Docker-Content-Digest": self.registry.lie or _digest(data)})

    def _give(self, data: bytes | None, digest: str) -> None:
        if data is None:
            return self._answer(404)
        return self._answer(200, {"Docker-Content-Digest": self.registry.lie or digest}, data)

    def _where(self, status: int, repository: str, name: str) -> None:
        upload = self.registry.uploads[name]
        headers = {"Location": f"/v2/{repository}/blobs/uploads/{name}", "Range": f"0-{max(len(upload) - 1, 0)}"}
        if self.registry.least:
            headers["OCI-Chunk-Min-Length"] = str(self.registry.least)
        self._answer(status, headers)

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self._answer(status, body=b'{"errors": [{"code": "NO", "message": "not so"}]}')

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(data: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
