"""A conversation with a server that speaks OpenAI's API: a line is a question, the answer is printed as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

from aikit_nix.base import console
from aikit_nix.base.errors import error
from aikit_nix.http.client import Client, Timeouts

_TIMEOUT = 1800.0  # seconds: a slow machine may take long to read a long conversation
_LONGEST_LINE = 1 << 20


def talk(url: str) -> None:
    """Answer each line of standard input, until its end. On a terminal Ctrl-C ends an answer. Raises AikitError."""
    terminal = sys.stdin.isatty()
    messages: list[dict[str, str]] = []
    with Client(Timeouts(read=_TIMEOUT, answer=_TIMEOUT, attempts=1)) as client:
        model = _model(client, url)
        while True:
            if terminal:
                console.piece("> ")
            line = sys.stdin.readline()
            if not line:
                break
            if not line.strip():
                continue
            messages.append({"role": "user", "content": line.strip()})
            messages.append({"role": "assistant", "content": ""})
            question = {"model": model, "messages": messages[:-1], "stream": True}
            try:
                with closing(_answer(client, url, question)) as parts:
                    for part in parts:
                        messages[-1]["content"] += part
                        console.piece(part)
            except KeyboardInterrupt:
                # A model without an end of its own goes on until its context is full.
                if not terminal:
                    raise
            console.piece("\n")
    if terminal:
        console.piece("\n")


def _model(client: Client, url: str) -> str:
    """The server's first model."""
    try:
        return str(client.get(f"{url}/v1/models").json()["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise error("the server has no model", code="chat") from None


def _answer(client: Client, url: str, question: dict[str, Any]) -> Generator[str]:
    """The parts of an answer as they come."""
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    data = json.dumps(question).encode()
    with client.stream(f"{url}/v1/chat/completions", headers=headers, content=data) as stream:
        for event in events(stream.blocks(1, _TIMEOUT)):
            try:
                part = json.loads(event)
                if "error" in part:
                    raise error(f"the server says: {part['error'].get('message')}", code="chat")
                content = part["choices"][0]["delta"].get("content") if part["choices"] else None
                if not isinstance(content, str | None):
                    raise TypeError("no text")
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
                raise error("the server answered with something that is no chat", code="chat") from None
            yield content or ""


def events(blocks: Iterable[bytes]) -> Iterator[str]:
    """The data of server-sent events, up to OpenAI's `[DONE]`, however they are cut into blocks."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise error("the server sends a line without an end", code="chat")
        for line in lines:
            name, _, data = line.rstrip(b"\r").partition(b":")
            if name == b"data":
                said = data.strip().decode(errors="replace")
                if said == "[DONE]":
                    return
                yield said
