"""The connections below the HTTP client: proxies and certificates as users set them, an end for what never ends."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from aikit_nix.http.client import Client, HttpError, Timeouts, Trouble
from support import file_server
from support.file_server import Failure, FileServer
from support.web import TIMEOUTS, TOKEN, refused


@pytest.mark.parametrize(
    "failure",
    [
        Failure(flood=b"HTTP/1.1 100 Continue\r\n\r\n"),
        Failure(drip=0.1),
        Failure(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", flood=b"1\r\nx\r\n" * 1000),
    ],
)
def test_an_answer_that_never_ends_ends(web: Client, files: FileServer, failure: Failure) -> None:
    files.files["/a"] = b"x" * 1000
    files.failures["/a"] = [failure]
    assert refused(web, files.url + "/a").trouble in (Trouble.SLOW, Trouble.TOO_LONG, Trouble.INTERRUPTED)


@pytest.mark.parametrize(
    "failure", [Failure(flood=b"x" * 999), Failure(flood=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9)]
)
def test_a_head_that_never_ends_ends(web: Client, files: FileServer, failure: Failure) -> None:
    files.failures["/a"] = [failure] * 3
    assert refused(web, files.url + "/a").trouble in (Trouble.SLOW, Trouble.INTERRUPTED)


def test_a_silent_server_is_left(web: Client) -> None:

    with socket.create_server(("127.0.0.1", 0)) as silent:
        problem = refused(web, f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert problem.trouble is Trouble.INTERRUPTED
    assert "said nothing" in problem.message


def test_no_cookie_is_kept(web: Client, files: FileServer) -> None:
    files.files["/a"] = b""
    files.failures["/a"] = [Failure(headers={"Set-Cookie": "a=b; Path=/"})]
    web.get(files.url + "/a")
    web.get(files.url + "/a")
    assert "cookie" not in files.requests[1].headers


def test_proxies_are_used_and_named(web: Client, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files.files["/a"] = b"through the proxy"  # a proxy is asked for whole addresses: the file server knows them
    monkeypatch.setenv("HTTP_PROXY", files.url)
    monkeypatch.setenv("http_proxy", files.url)
    assert web.get("http://nowhere.invalid/a").body == b"through the proxy"
    monkeypatch.setenv("http_proxy", f"http://me:{TOKEN}@127.0.0.1:1")
    with Client(TIMEOUTS) as fresh:
        problem = refused(fresh, "http://nowhere.invalid/a")
    assert problem.trouble is Trouble.UNREACHABLE
    assert "through the proxy http://***@127.0.0.1:1" in problem.message
    assert TOKEN not in problem.message


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://[", "socks9://"])
def test_a_proxy_of_no_use_is_an_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("all_proxy", proxy)
    with Client(TIMEOUTS) as web:
        assert "proxy" in refused(web, "http://nowhere.invalid/").message


def test_nothing_is_asked_for_where_encryption_ends(
    certificate: tuple[Path, Path], files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    files.files["/b"] = b"plain"
    with file_server.serve({}, certificate) as server, Client(TIMEOUTS) as web:
        server.redirects["/a"] = files.url + "/b"
        for headers in ({"Authorization": TOKEN}, {}):  # `lock` learns a hash from what it gets
            assert "not encrypted" in refused(web, server.url + "/a", headers=headers).message
        assert files.requests == []


def test_a_drip_over_tls_ends(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with file_server.serve({"/a": b"x" * 1000}, certificate) as server, Client(TIMEOUTS) as web:
        server.failures["/a"] = [Failure(drip=0.1), Failure()]
        assert refused(web, server.url + "/a").trouble is Trouble.SLOW
        assert web.get(server.url + "/a").body == b"x" * 1000


def test_abort_ends_what_other_threads_do(files: FileServer) -> None:
    files.files["/a"] = b"x" * 1000
    files.failures["/a"] = [Failure(drip=0.05)] * 9
    problems: list[HttpError] = []
    with Client(Timeouts()) as web:
        thread = threading.Thread(target=lambda: problems.append(refused(web, files.url + "/a")))
        thread.start()
        while not files.requests:
            time.sleep(0.01)
        web.abort()
        thread.join(10)
        assert not thread.is_alive()
        assert problems[0].trouble is Trouble.INTERRUPTED
        assert refused(web, files.url + "/a").trouble is Trouble.INTERRUPTED
