"""A stand-in for Hugging Face on loopback: repositories with commits, its API, and a CDN on a host of its own.

Answers as huggingface.co does: `GET /api/models/NS/REPO/revision/REV?blobs=true`, `HEAD` and `GET /NS/REPO/resolve/REV/FILE` with
X-Repo-Commit, X-Linked-Etag and X-Linked-Size, LFS and Xet files by a redirect to the CDN, refusals with X-Error-Code.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.file_server import Request

TOKEN = "hf_StandInForTheTests0123456789abcd"
SIGNATURE = "c2lnbmF0dXJlLW9mLXRoZS1jZG4"


@dataclass
class Repository:
    """A repository. `commits` maps a commit to its files, `branches` a name to a commit.

    Files that end with one of `lfs` are LFS files, which have a SHA-256; with `xet`, they are in Xet storage, too.
    `gated` and `private` ones are open to TOKEN alone; with `terms`, not even to it.
    """

    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    lfs: tuple[str, ...] = (".gguf", ".safetensors", ".bin")
    xet: bool = False
    gated: bool = False
    private: bool = False
    terms: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put files into the repository, in place of all that were there; gives the commit."""
        text = repr(sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items()))
        name = hashlib.sha1(f"{self.name} {text}".encode()).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch or commit."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class HuggingFace:
    """What is served, and what was asked. All of it may be changed while it runs.

    `moved` maps a repository's old name to its new one; `busy` counts requests to the API that are answered 429.
    """

    url: str = ""
    cdn_url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    busy: int = 0
    ranges: bool = True
    requests: list[Request] = field(default_factory=list)
    cdn_requests: list[Request] = field(default_factory=list)
    sent: int = 0  # bytes of files
    lock: threading.Lock = field(default_factory=threading.Lock)

    def repository(self, name: str = "ns/repo", **options: Any) -> Repository:
        """A new repository."""
        made = self.repositories[name] = Repository(name, **options)
        return made

    def asked(self, text: str) -> list[str]:
        """The requests whose path holds a text, as `METHOD PATH`."""
        return [f"{request.method} {request.path}" for request in self.requests if text in request.path]


@contextmanager
def serve() -> Iterator[HuggingFace]:
    """A running stand-in, for HF_ENDPOINT=`url`."""
    state = HuggingFace()
    hub = _Server(("127.0.0.1", 0), type("Hub", (_Hub,), {"state": state}))
    cdn = _Server(("127.0.0.1", 0), type("Cdn", (_Cdn,), {"state": state}))
    state.url, state.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in (hub, cdn))
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in (hub, cdn)]
    for thread in threads:
        thread.start()
    try:
        yield state
    finally:
        for server, thread in zip((hub, cdn), threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked hung up."""


class _Handler(BaseHTTPRequestHandler):
    state: HuggingFace
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def request_seen(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, self.path, headers)

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            if status < 300:
                with self.state.lock:
                    self.state.sent += len(body)

    def file(self, data: bytes, headers: Mapping[str, str]) -> None:
        """A file, or the part of it that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not (wanted and self.state.ranges):
            return self.send(200, headers, data)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if start > end:
            return self.send(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
        there = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Accept-Ranges": "bytes"}
        return self.send(206, {**headers, **there}, data[start : end + 1])


class _Hub(_Handler):
    def answer(self) -> None:
        with self.state.lock:
            self.state.requests.append(self.request_seen())
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._info(found[1], found[2], blobs="true" in query.get("blobs", ()))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(found[1], unquote(found[2]), found[3])
        return self.send(404, {}, b"Not Found")

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self.send(status, headers, json.dumps({"error": message}).encode())

    def _repository(self, name: str, *, files: bool) -> Repository | None:
        """None where the request was answered: the repository is not there, not open, or has another name now."""
        if name in self.state.moved:
            self.send(307, {"Location": self.path.replace(name, self.state.moved[name], 1)})
            return None
        repository = self.state.repositories.get(name)
        may = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.headers.get("Authorization") and not may:
            self.send(401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}")
        elif repository is None or (repository.private and not may):
            self._refuse(
                *(
                    (404, "RepoNotFound", "Repository not found")
                    if may
                    else (401, "RepoNotFound", "Invalid username or password.")
                )
            )
        elif files and repository.gated and not may:
            self._refuse(
                401, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated to access it."
            )
        elif files and repository.gated and repository.terms:
            self._refuse(
                403, "GatedRepo", f"Access to model {name} is restricted and you are not in the authorized list."
            )
        else:
            return repository
        return None

    def _info(self, name: str, revision: str, *, blobs: bool) -> None:
        with self.state.lock:
            is_busy = self.state.busy > 0
            self.state.busy -= is_busy
        if is_busy:
            return self.send(
                429, {"RateLimit": '"api";r=0;t=1', "Retry-After": "1"}, b'{"error":"We had to rate limit you"}'
            )
        if (repository := self._repository(name, files=False)) is None:
            return None
        if (commit := repository.resolve(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for path, data in repository.commits[commit].items():
            sibling: dict[str, Any] = {"rfilename": path}
            if blobs:
                sibling |= {"blobId": _blob_id(data), "size": len(data)}
                if path.endswith(repository.lfs):
                    sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
            siblings.append(sibling)
        said = {
            "_id": "6" * 24, "id": repository.name, "modelId": repository.name, "sha": commit, "private": repository.private,
            "gated": "manual" if repository.gated else False, "disabled": False, "tags": [], "downloads": 1, "likes": 0,
            "author": repository.name.split("/")[0], "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z", "siblings": siblings, "cardData": dict(repository.card),
        }  # fmt: skip
        return self.send(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if (repository := self._repository(name, files=True)) is None:
            return None
        if (commit := repository.resolve(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repository.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if data is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.send(404, headers, b"Entry not found")
        if not path.endswith(repository.lfs):
            return self.file(data, headers | {"ETag": f'"{_blob_id(data)}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256}"'}
        if repository.xet:
            headers["X-Xet-Hash"] = "e" * 64
            headers["Link"] = f'<{self.state.url}/api/models/{name}/xet-read-token/{commit}>; rel="xet-auth"'
        location = f"{self.state.cdn_url}/{name}/{commit}/{path}?X-Amz-Signature={SIGNATURE}"
        return self.send(302, headers | {"Location": location})


class _Cdn(_Handler):
    def answer(self) -> None:
        with self.state.lock:
            self.state.cdn_requests.append(self.request_seen())
        where = urlsplit(self.path)
        name, commit, path = re.fullmatch(r"/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", unquote(where.path)).groups()  # type: ignore[union-attr]
        if parse_qs(where.query).get("X-Amz-Signature") != [SIGNATURE]:
            return self.send(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        data = self.state.repositories[name].commits[commit][path]
        return self.file(data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})


def _blob_id(data: bytes) -> str:
    """The name that git gives to the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
