"""Where requests go, and what goes with them: never a credential to another host, never one into a message."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aikit_nix.base import console, redact
from aikit_nix.http.client import Client, HttpError, Trouble
from support import file_server
from support.file_server import Failure, FileServer
from support.web import TOKEN, refused


@pytest.fixture
def other() -> Iterator[FileServer]:
    """A server on another port, so another host."""
    with file_server.serve() as server:
        yield server


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc/passwd", "x", "", "http:///a", "http://[::1"])
def test_only_http_addresses_are_asked(web: Client, url: str) -> None:
    assert refused(web, url).trouble is Trouble.REFUSED


def test_credentials_stay_with_their_host(web: Client, files: FileServer, other: FileServer) -> None:
    other.files["/b"] = b"there"
    files.redirects["/a"] = other.url + "/b"
    headers = {"Authorization": f"Bearer {TOKEN}", "PRIVATE-TOKEN": TOKEN, "Cookie": TOKEN, "Accept": "x/y"}
    assert web.get(files.url + "/a", headers=headers).body == b"there"
    assert files.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in str(other.requests)
    assert other.requests[0].headers["accept"] == "x/y"

    files.redirects["/a"] = "/b"
    files.files["/b"] = b"here"
    assert web.get(files.url + "/a", headers=headers).body == b"here"
    assert files.requests[-1].headers["private-token"] == TOKEN


def test_user_and_password_stay_with_their_host(web: Client, files: FileServer, other: FileServer) -> None:
    files.redirects["/a"] = other.url.replace("//", "//evil:evil@") + "/b"
    other.files["/b"] = b""
    web.get(files.url.replace("//", "//me:passw0rd@") + "/a")
    assert files.requests[0].headers["authorization"] == "Basic bWU6cGFzc3cwcmQ="
    assert "authorization" not in other.requests[0].headers


def test_head_does_not_leave_the_host(web: Client, files: FileServer, other: FileServer) -> None:
    files.redirects |= {"/old": "/new", "/new": other.url + "/b"}
    answer = web.head(files.url + "/old")
    assert (answer.status, answer.headers["location"]) == (302, other.url + "/b")
    assert other.requests == []


def test_a_question_is_not_asked_elsewhere(web: Client, files: FileServer, other: FileServer) -> None:
    files.redirects["/a"] = other.url + "/b"
    with pytest.raises(HttpError, match="redirects what is sent to"):
        web.post(files.url + "/a", b"x")
    assert other.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://x:y/"])
def test_only_http_is_redirected_to(web: Client, files: FileServer, target: str) -> None:
    files.redirects["/a"] = target
    assert refused(web, files.url + "/a").trouble in (Trouble.REFUSED, Trouble.INTERRUPTED)


def test_circles_of_redirects_end(web: Client, files: FileServer) -> None:
    files.redirects |= {"/a": "/b", "/b": "/a"}
    assert "redirects more than 10 times" in refused(web, files.url + "/a").message


def test_no_message_holds_a_secret(
    web: Client, files: FileServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "verbosity", console.Verbosity.VERBOSE)
    address = files.url.replace("//", f"//me:{TOKEN}@") + f"/a?X-Amz-Signature={TOKEN}&token={TOKEN}&part=1"
    echo = f"HTTP/1.1 404 No {TOKEN}\x1b[31m\r\nContent-Length: 0\r\n\r\n".encode()
    files.failures["/a"] = [Failure(raw=b""), Failure(raw=echo)]
    problem = refused(web, address)
    files.redirects["/r"] = f"ftp://x/{TOKEN}"
    said = [str(problem), str(refused(web, files.url + "/r", headers={"Authorization": f"Bearer {TOKEN}"}))]
    said.append(str(refused(web, files.url + "/h", headers={"Authorization": f"Bearer {TOKEN}\n\x1b"})))
    said.append(capsys.readouterr().err)
    assert TOKEN not in "".join(said)
    assert "\x1b" not in "".join(said)
    assert f"$ GET {files.url}/a?X-Amz-Signature=***&token=***&part=1 -> 404" in said[-1].splitlines()


def test_what_is_no_secret_of_a_request_is_shown_later(web: Client, files: FileServer) -> None:
    files.files["/a"] = b""
    web.send("PUT", files.url + "/a", [b"x" * 54321], 54321, headers={"Content-Range": "7-54327"})
    assert redact.without_secrets("54321 of 7-54327") == "54321 of 7-54327"


def test_what_is_sent_is_never_redirected(web: Client, files: FileServer, other: FileServer) -> None:
    files.redirects["/a"] = other.url + "/b"
    with pytest.raises(HttpError, match="redirects what is sent to"):
        web.send("PUT", files.url + "/a", [b"secret"], 6, headers={"Authorization": f"Bearer {TOKEN}"})
    assert not other.requests
