"""A conversation with a server that speaks OpenAI's API, or should."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.image import chat
from support.loopback import Handler, Server, running


@contextmanager
def speaks(*parts: Any, models: bytes = b'{"data": [{"id": "m"}]}') -> Iterator[tuple[str, list[Any]]]:
    """The address of a server that answers every question with these parts, and what it is asked."""
    asked: list[Any] = []

    class Speaker(Handler):
        def respond(self) -> None:
            if self.command == "POST":
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            events = [part if isinstance(part, str) else json.dumps(part) for part in parts]
            body = "".join(f"data: {event}\n\n" for event in events).encode() if self.command == "POST" else models
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = Server(("127.0.0.1", 0), Speaker)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", asked


def says(content: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}]}


def test_each_line_is_a_question_and_what_was_said_goes_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n \ntwo\n"))
    with speaks(says(None), says("Hel"), says("lo"), {"choices": []}, "[DONE]") as (url, asked):
        chat.talk(url)
    assert capsys.readouterr().out == "Hello\n" * 2
    assert [each["content"] for each in asked[1]["messages"]] == ["one", "Hello", "two"]
    assert {each["model"] for each in asked} == {"m"}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"error": {"message": "no room"}}, "the server says: no room"),
        ({"error": "no room"}, "no chat"),
        (says(["text"]), "no chat"),
        ({"choices": [{}]}, "no chat"),
        (1, "no chat"),
        ("{", "no chat"),
        pytest.param("[" * 100_000, "no chat", id="deep"),
    ],
)
def test_a_server_that_speaks_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, part: Any, said: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    with speaks(part) as (url, _), pytest.raises(AikitError, match=said):
        chat.talk(url)


@pytest.mark.parametrize("models", [b'{"data": []}', b"[]", b'{"data": [1]}', b"{"])
def test_a_server_without_a_model_is_refused(models: bytes) -> None:
    with speaks(models=models) as (url, _), pytest.raises(AikitError):
        chat.talk(url)


def test_an_answer_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    with speaks(says("a\n\x1b]0;pwned\x07")) as (url, _):
        chat.talk(url)
    assert capsys.readouterr().out == "a\n\\x1b]0;pwned\\x07\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    text = ': comment\n\ndata: {"a": "ü"}\r\n\r\nevent: x\ndata:two\n\ndata: [DONE]\n\ndata: never\n'.encode()
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(chat.events(blocks)) == ['{"a": "ü"}', "two"]
    with pytest.raises(AikitError, match="without an end"):
        list(chat.events([b"data: ", bytes(2 << 20)]))


# --- On a terminal

TALK = """
import signal, sys
from aikit_nix.image import chat
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
chat.talk(sys.argv[1])
"""


@contextmanager
def babbles() -> Iterator[tuple[str, threading.Event]]:
    """The address of a server whose answers have no end, and whether one of them was hung up on."""
    hung_up = threading.Event()

    class Babbler(Handler):
        def respond(self) -> None:
            self.send_response(200)
            if self.command == "GET":
                body = b'{"data": [{"id": "m"}]}'
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.end_headers()
            try:
                while True:
                    self.wfile.write(f"data: {json.dumps(says('la '))}\n\n".encode())
                    time.sleep(0.01)
            except OSError:
                hung_up.set()

    server = Server(("127.0.0.1", 0), Babbler)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", hung_up


@contextmanager
def on_a_terminal(url: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[bytes], None]]]:
    """A conversation that was begun there, and a function that reads what it shows until some words."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", TALK, url], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)

        def until(words: bytes) -> None:
            shown = b""
            while words not in shown:
                shown += os.read(ours, 1000)  # an error where the other end is closed

        try:
            until(b"> ")
            os.write(ours, b"hello\n")
            until(b"la la ")
            yield process, until
            os.write(ours, b"\x04")  # Ctrl-D
            process.wait(60)
        finally:
            process.kill()
            os.close(ours)


def test_ctrl_c_ends_an_answer_and_not_the_conversation() -> None:
    with babbles() as (url, hung_up):
        with on_a_terminal(url) as (process, until):
            process.send_signal(signal.SIGINT)
            until(b"> ")
            assert hung_up.wait(60)
        assert process.returncode == 0


def test_who_is_told_to_end_ends_in_the_middle_of_an_answer() -> None:
    with babbles() as (url, hung_up):
        with on_a_terminal(url) as (process, _):
            process.terminate()
            process.wait(60)
        assert hung_up.wait(60)
        assert process.returncode == 143
