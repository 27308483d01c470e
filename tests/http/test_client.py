"""The HTTP client against servers that misbehave."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Answer, Client, HttpError, Trouble
from support.file_server import Failure, FileServer
from support.web import TIMEOUTS, refused


def test_a_small_answer(web: Client, files: FileServer) -> None:
    files.files["/a"] = b'{"x": [1]}'
    assert web.get(files.url + "/a").json() == {"x": [1]}
    answer = web.head(files.url + "/a")
    assert (answer.status, answer.body, answer.headers["content-LENGTH"]) == (200, b"", "10")
    assert web.post(files.url + "/a", b"asked").json() == {"x": [1]}
    assert files.requests[-1].body == b"asked"
    assert files.requests[0].headers["user-agent"].startswith("aikit-nix/")


def test_what_is_no_json_is_said(web: Client, files: FileServer) -> None:
    files.files["/a"] = b"<html>" + b"[" * 100_000
    with pytest.raises(HttpError, match="no JSON"):
        web.get(files.url + "/a").json()


@pytest.mark.parametrize(
    "failure",
    [
        Failure(status=408),
        Failure(status=429),
        Failure(status=500),
        Failure(status=503),
        Failure(cut=3),
        Failure(raw=b""),
        Failure(raw=b"HTTP/1.1 200"),
        Failure(raw=b"nonsense\r\n\r\n"),
        Failure(raw=b"HTTP/9.9 -1 \x1b[31m\r\n\r\n"),
    ],
)
def test_what_may_pass_is_tried_again(web: Client, files: FileServer, failure: Failure) -> None:
    files.files["/a"] = b"whole answer"
    files.failures["/a"] = [failure, failure]
    assert web.get(files.url + "/a").body == b"whole answer"
    assert files.count("/a") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_not_tried_again(web: Client, files: FileServer, status: int) -> None:
    files.failures["/a"] = [Failure(status=status, headers={"X-Error-Code": "GatedRepo"})]
    problem = refused(web, files.url + "/a")
    assert (problem.trouble, problem.status, problem.headers["x-error-code"]) == (Trouble.STATUS, status, "GatedRepo")
    assert f"{files.url}/a answered {status}" in problem.message
    assert files.count("/a") == 1


def test_it_gives_up_with_what_the_server_said(web: Client, files: FileServer) -> None:
    files.failures["/a"] = [Failure(status=503)] * 9
    assert refused(web, files.url + "/a").status == 503
    assert files.count("/a") == TIMEOUTS.attempts


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": "99999"}, 7),
        ({"Retry-After": format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)}, 0.01),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)}, 7),
        ({"Retry-After": "-1 soon ²"}, 0.01),
        ({"RateLimit": '"api";r=0;t=5'}, 5),
        ({}, 0.01),
    ],
)
def test_it_waits_as_long_as_the_server_says(files: FileServer, headers: dict[str, str], waited: float) -> None:
    waits: list[float] = []
    files.files["/a"] = b""
    files.failures["/a"] = [Failure(status=429, headers=headers)]
    with Client(TIMEOUTS, sleep=waits.append) as web:
        web.get(files.url + "/a")
    assert waits == [waited]


def test_waits_double_up_to_a_limit(files: FileServer) -> None:
    waits: list[float] = []
    files.failures["/a"] = [Failure(status=500)] * 9
    with Client(replace(TIMEOUTS, attempts=6, first_wait=1), sleep=waits.append) as web:
        refused(web, files.url + "/a")
    assert waits == [1, 2, 4, 7, 7]


def test_too_long_an_answer_is_not_read(web: Client, files: FileServer) -> None:
    files.files["/a"] = b"x" * 1001
    files.failures["/a"] = [Failure(), Failure(endless=True)]
    for _ in range(2):
        assert refused(web, files.url + "/a", limit=1000).trouble is Trouble.TOO_LONG
    assert len(web.get(files.url + "/a", limit=1001).body) == 1001


def test_a_packed_answer_is_unpacked_within_the_limit(web: Client, files: FileServer) -> None:
    packed = {"Content-Encoding": "gzip"}
    files.files |= {"/a": gzip.compress(b"text"), "/bomb": gzip.compress(bytes(50 << 20))}
    files.failures |= {"/a": [Failure(headers=packed)], "/bomb": [Failure(headers=packed)]}
    assert web.get(files.url + "/a").body == b"text"
    assert refused(web, files.url + "/bomb", limit=1 << 20).trouble is Trouble.TOO_LONG


def test_several_threads_may_ask(web: Client, files: FileServer) -> None:
    files.files |= {f"/{index}": b"%d" % index for index in range(8)}
    answers: dict[int, Answer] = {}

    def ask(index: int) -> None:
        for _ in range(5):
            answers[index] = web.get(f"{files.url}/{index}")

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {index: answer.body for index, answer in answers.items()} == {index: b"%d" % index for index in range(8)}


# --- What is sent


def test_what_is_sent_is_made_on_the_way(web: Client, files: FileServer) -> None:
    files.files["/a"] = b"taken"
    answer = web.send("PUT", files.url + "/a", (b"x" * size for size in (1, 2, 3)), 6, headers={"X-A": "b"})
    assert (answer.status, answer.body) == (200, b"taken")
    (request,) = files.requests
    assert (request.method, request.body, request.headers["x-a"]) == ("PUT", b"xxxxxx", "b")
    assert "transfer-encoding" not in request.headers


def test_a_body_that_fails_is_not_sent_whole(web: Client, files: FileServer) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x" * 10
        raise AikitError

    with pytest.raises(AikitError) as raised:
        web.send("PUT", files.url + "/a", blocks(), 20)
    assert type(raised.value) is AikitError
    assert all(len(request.body) < 20 for request in files.requests)


def test_a_server_that_takes_nothing_is_too_slow(web: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(HttpError) as raised:
            web.send("PUT", url, (bytes(1 << 20) for _ in range(64)), 64 << 20)
    assert raised.value.again


def test_the_time_in_which_a_block_is_made_is_not_the_servers(files: FileServer) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(3):
            time.sleep(0.3)
            yield b"x"

    files.files["/a"] = b"taken"
    with Client(replace(TIMEOUTS, answer=0.2)) as client:
        client.send("PUT", files.url + "/a", blocks(), 3)
    assert files.requests[0].body == b"xxx"


def test_a_refusal_of_what_was_sent_is_not_repeated(web: Client, files: FileServer) -> None:
    files.failures["/a"] = [Failure(503), Failure(503)]
    with pytest.raises(HttpError) as raised:
        web.send("PUT", files.url + "/a", [b"x"], 1)
    assert (raised.value.status, raised.value.again, files.count("/a")) == (503, True, 1)
