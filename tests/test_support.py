"""The support code is trusted by other tests: its own promises are checked here."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

import gguf
import pytest

from support import file_server, tiny_gguf


def test_tiny_model_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, two = tiny_gguf.make(tmp_path / "one.gguf"), tiny_gguf.make(tmp_path / "two.gguf")
    other = tiny_gguf.make(tmp_path / "other.gguf", name="other")
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_tiny_model_header_is_what_was_asked_for(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(tiny_gguf.make(tmp_path / "m.gguf", name="n", context=123, chat_template="t"))
    values = {key: reader.fields[key].contents() for key in ("general.name", "llama.context_length")}
    assert values == {"general.name": "n", "llama.context_length": 123}
    assert reader.fields["tokenizer.chat_template"].contents() == "t"


def test_tiny_model_refuses_a_sentence_it_could_not_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different words"):
        tiny_gguf.make(tmp_path / "m.gguf", "one and one and")


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=names)) as response:
        return response.status, response.read()


def test_file_server_serves_ranges_and_counts(files: file_server.FileServer) -> None:
    files.files["/a b"] = b"0123456789"
    url = f"{files.url}/a%20b?download=true"
    assert fetch(url) == (200, b"0123456789")
    assert fetch(url, Range="bytes=4-") == (206, b"456789")
    assert fetch(url, Range="bytes=4-5") == (206, b"45")
    assert fetch(url, Range="bytes=4-", If_Range='"other"') == (200, b"0123456789")
    files.ranges = False
    assert fetch(url, Range="bytes=4-") == (200, b"0123456789")
    assert files.count("/a b") == 5


def test_file_server_fails_on_demand(files: file_server.FileServer) -> None:
    files.files["/f"] = b"0123456789"
    files.failures["/f"] = [file_server.Failure(status=503), file_server.Failure(cut=3)]
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        fetch(files.url + "/f")
    refused.value.close()
    with pytest.raises(http.client.IncompleteRead):
        fetch(files.url + "/f")
    assert fetch(files.url + "/f") == (200, b"0123456789")
    with pytest.raises(urllib.error.HTTPError, match="416") as beyond:
        fetch(files.url + "/f", Range="bytes=99-")
    beyond.value.close()
