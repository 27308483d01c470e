"""Properties that hold for any names, texts, GGUF headers, locks and answers of servers.

`make fuzz` runs these too, and prints how many inputs they saw.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import re
import struct
from functools import lru_cache
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aikit_nix.aikitfile import parser
from aikit_nix.base import diagnostics, redact
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity
from aikit_nix.flakes import plan
from aikit_nix.http.client import ANSWER_LIMIT, Client, Timeouts
from aikit_nix.models import lock
from aikit_nix.nix import store
from aikit_nix.sources import gguf
from support.file_server import Failure, FileServer, serve
from support.pins import pinned

SHA = "1" * 64

# --- What is printed

STEERING = st.sampled_from(
    ["\x1b]0;t\x07", "\x1b]52;c;eA==\x07", "\x1b[2J", "\x9b31m", "\x90", "\x85", "\r", "\n", "\nerror: x", "\t", "\x7f", "\u202e", "\u2066", "\u2028", "\u200b", "\ufeff", "\U000e0041", "\udcff", "\\x1b", "é", "日", " ", "[bold]", "x"]
)  # fmt: skip
SHOWN = st.lists(STEERING | st.text(max_size=3), max_size=12).map("".join)


@given(SHOWN)
def test_what_is_printed_is_one_line_of_printable_text(text: str) -> None:
    shown = redact.printable(text)
    assert shown.isprintable()
    assert redact.printable(shown) == shown
    assert text != shown or text.isprintable()


@given(SHOWN, SHOWN, SHOWN, st.integers(0, 9), st.integers(0, 300), st.booleans())
def test_a_diagnostic_is_a_line_and_an_excerpt(
    message: str, file: str, text: str, line: int, column: int, colour: bool
) -> None:
    at = Position(file, line, column, text)
    shown = diagnostics.text([Diagnostic(Severity.WARNING, "x", message, at)], colour=colour)
    plain = re.sub(r"\x1b\[\d+m", "", shown) if colour else shown
    assert plain.replace("\n", "").isprintable()
    assert plain.count("\n") in (1, 3)
    assert (
        json.loads(diagnostics.json([Diagnostic(Severity.WARNING, "x", message, at)]))["diagnostics"][0]["file"] == file
    )


@given(SHOWN, SHOWN)
def test_a_hidden_secret_is_never_shown(text: str, around: str) -> None:
    redact.hide("hf_secret_of_mine")
    shown = redact.shown(f"{around}hf_secret_of_mine{text} https://u:p@h/?token=hf_secret_of_mine#{around}")
    assert "hf_secret_of_mine" not in shown
    assert "u:p@" not in shown


# --- Names

NAMES = st.lists(
    st.sampled_from(["a", "b", ".", "..", "/", "./", "-", "~", " ", "#", ";", "$", "'", '"', "\\", "%2F", "é", "日" * 80, "x" * 260, ".tmpl", ".drv", ".gguf", "m", "\0", "\n", "\x1b", "\u202e"])
    | st.text(max_size=2),
    max_size=8,
).map("".join)  # fmt: skip
MODELS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "source": NAMES | NAMES.map("https://h.example/{}".format), "sha256": st.just(SHA)},
        optional={
            "promptTemplates": st.lists(st.fixed_dictionaries({"name": NAMES, "template": NAMES}), max_size=3),
        },
    ),
    min_size=1,
    max_size=3,
)


@given(MODELS)
@example([{"name": "m", "source": "m", "sha256": SHA, "promptTemplates": [{"name": "t", "template": "x"}] * 2}])
def test_every_name_lands_on_a_path_of_its_own_below_models(models: list[dict[str, Any]]) -> None:
    data = json.dumps({"apiVersion": "v1alpha1", "models": models}, ensure_ascii=False)
    try:
        parsed, _ = parser.parse(data.encode("utf-8", "surrogatepass"), "f")
        planned, _ = plan.make(pinned(parsed), plan.Options())
    except AikitError:
        return
    paths = [model.path for model in planned.models] + [file.path for file in planned.files]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.startswith("/models/")
        assert os.path.normpath(path) == path
        assert path.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", path)
        assert all(len(part.encode()) <= 255 for part in path.split("/"))
        assert not any(other.startswith(f"{path}/") for other in paths)
    for model in planned.models:
        assert_store_name(model.name)
    assert re.fullmatch(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*", planned.image.name)


@given(NAMES)
def test_every_file_name_becomes_one_that_the_store_takes(name: str) -> None:
    assert_store_name(store.name(name))


def assert_store_name(name: str) -> None:
    assert re.fullmatch(r"[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]{0,210}", name)
    assert not name.endswith(".drv")


# --- GGUF headers

COUNTS = st.integers(0, 3) | st.sampled_from([2**16, 2**22 + 1, 2**31, 2**32, 2**63, 2**64 - 1])
KEYS = st.sampled_from(
    [b"general.architecture", b"general.name", b"general.type", b"llama.context_length", b"tokenizer.chat_template", b"x"]
)  # fmt: skip


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


TEXTS = st.binary(max_size=20).map(lambda text: number(len(text)) + text)
LYING = st.tuples(COUNTS, st.binary(max_size=20)).map(lambda both: number(both[0]) + both[1])
VALUES = (
    st.tuples(st.just(8), TEXTS | LYING)
    | st.tuples(st.sampled_from([0, 1, 4, 5, 6, 7, 10, 11, 12, 13, 2**31]), st.binary(max_size=8))
    | st.tuples(
        st.just(9),
        st.tuples(st.integers(0, 13), COUNTS, st.lists(TEXTS, max_size=3).map(b"".join)).map(
            lambda array: struct.pack("<IQ", *array[:2]) + array[2]
        ),
    )
).map(lambda value: struct.pack("<I", value[0]) + value[1])
HEADERS = st.tuples(
    st.sampled_from([2, 3]), COUNTS, st.lists(st.tuples(KEYS, VALUES), max_size=5), st.none() | COUNTS
).map(
    lambda parts: (
        b"GGUF"
        + struct.pack("<IQQ", parts[0], parts[1], len(parts[2]) if parts[3] is None else parts[3])
        + b"".join(number(len(key)) + key + value for key, value in parts[2])
    )
)


@given(HEADERS, st.binary(max_size=30))
def test_a_gguf_header_is_read_or_refused(header: bytes, behind: bytes) -> None:
    stream = io.BytesIO(header + behind)
    with contextlib.suppress(gguf.NotGgufError):
        found = gguf.read(stream)
        assert found.context_length is None or isinstance(found.context_length, int)
        assert found.name is None or isinstance(found.name, str)


# --- Locks

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES | st.just(SHA) | st.just("/models/m") | st.just("https://h/m"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "source", "files", "origin", "path", "url", "size", "sha256", "layer", "digest"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
LOCKED_FILES = st.fixed_dictionaries(
    {"path": st.just("/models/m") | NAMES.map("/models/{}".format) | JSON, "size": st.just(1) | JSON, "sha256": st.just(SHA) | JSON},
    optional={"url": st.just("https://h/m") | JSON, "layer": JSON, "blake3": st.just(SHA) | JSON, "private": JSON},
)  # fmt: skip
LOCKS = st.fixed_dictionaries(
    {
        "version": st.just(1) | JSON,
        "models": st.lists(
            st.fixed_dictionaries(
                {"name": NAMES | JSON, "source": NAMES | JSON, "files": st.lists(LOCKED_FILES, max_size=2) | JSON},
                optional={"origin": JSON},
            )
            | JSON,
            max_size=2,
        )
        | JSON,
    }
)


@given(LOCKS | JSON)
def test_a_lock_is_read_or_refused_and_written_as_it_was_read(value: Any) -> None:
    data = json.dumps(value).encode()
    try:
        read = lock.parse(data, "aikit.lock")
    except AikitError as refused:
        assert diagnostics.text(refused.diagnostics).replace("\n", "").isprintable()
        return
    for entry in read.entries.values():
        for path, pin in entry.files:
            assert path.startswith("/models/")
            assert os.path.normpath(path) == path
            assert re.fullmatch("[0-9a-f]{64}", pin.sha256)
    assert lock.parse(read.to_json().encode("utf-8", "surrogatepass"), "aikit.lock") == read


# --- Answers of servers

STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 206 Partial", b"HTTP/1.1 204", b"HTTP/1.1 301 M", b"HTTP/1.1 308 P", b"HTTP/1.1 404 \x1b]0;x\x07", b"HTTP/1.1 429 w", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/9.9 -1", b"HTTP/1.1 99999999999 x", b"HTTP/1.1 \xb2\xb2\xb2 x", b"ICY 200 OK", b""]
)  # fmt: skip
HEADER_LINES = st.sampled_from(
    [b"Content-Length: 5", b"Content-Length: -5", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 5", b"Content-Length: 1_0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Encoding: gzip", b"Content-Type: text/html; charset=utf-7", b"Location: /a", b"Location: ftp://h/a", b"Location: file:///etc/passwd", b"Location: http://[", b"Location: http://u:p@127.0.0.1:1/a", b"Location: \xff\x1b", b"Retry-After: -1", b"Retry-After: 1e999", b"Retry-After: \xb2", b"Set-Cookie: a=b", b"X: \x1b]0;x\x07", b"X: a\r\n b", b"no colon", b": x", b"X" * 5000 + b": y", b"ETag: W/\"x", b"Link: <http://[>; rel=next", b"Connection: close"]
)  # fmt: skip
BODIES = st.sampled_from(
    [b"", b"hello", b'{"a": 1}', b"[" * 5000, b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n", b"FFFFFFFFFFFFFFFFFF\r\nx", b"-1\r\nx", b"zz\r\n", b"\x1f\x8b\x08\0", b"\xff\xfe"]
) | st.binary(max_size=50)  # fmt: skip
ANSWERS = st.tuples(STATUS, st.lists(HEADER_LINES, max_size=5), BODIES).map(
    lambda parts: b"\r\n".join([parts[0], *parts[1], b"", parts[2]])
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Answers with some bytes cut out, doubled or replaced."""
    answer = draw(ANSWERS)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(answer)))
        answer = answer[:at] + draw(st.binary(max_size=3)) + answer[at + draw(st.integers(0, 4)) :]
    return answer


@lru_cache(maxsize=1)
def server() -> FileServer:
    """One for the whole process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)  # later, its thread would stand still and be waited for
    return stack.enter_context(serve())


@settings(max_examples=50)
@given(answers(), st.sampled_from(["get", "json", "head", "post", "stream"]))
def test_an_answer_is_one_or_an_error(answer: bytes, how: str) -> None:
    web = server()
    web.failures["/a"] = [Failure(raw=answer)] * 3
    timeouts = Timeouts(connect=5, read=0.2, answer=0.4, attempts=1, first_wait=0, longest_wait=0)
    with Client(timeouts, sleep=lambda _: None) as client:
        try:
            match how:
                case "post":
                    client.post(web.url + "/a", b"x")
                case "json":
                    client.get(web.url + "/a").json()
                case "stream":
                    with client.stream(web.url + "/a") as stream:
                        assert sum(map(len, stream.blocks(1, 0.2))) <= ANSWER_LIMIT
                case _:
                    getattr(client, how)(web.url + "/a")
        except AikitError as refused:
            assert diagnostics.text(refused.diagnostics).replace("\n", "").isprintable()
            assert "u:p@" not in str(refused)
