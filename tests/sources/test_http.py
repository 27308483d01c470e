"""Files behind URLs: how they are written, and `lock` and `fetch` with a web server, also one that misbehaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from aikit_nix.sources import RefusedError, http
from support import tiny_gguf
from support.file_server import Failure, FileServer
from support.hugging_face import SIGNATURE, HuggingFace
from support.locks import digest, done, in_store, locked, only_file, refused, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


def test_a_file_behind_a_url_is_downloaded_once(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    file = only_file(tmp_path)
    assert (file["sha256"], file["size"], file["gguf"]) == (
        digest(model),
        len(model),
        tiny_gguf.FACTS,
    )
    assert file["blake3"]
    assert file["layer"]
    assert in_store("m.gguf", model)
    count = files.count("/m.gguf")
    assert "0 of them new" in done(tmp_path, "fetch")
    assert files.count("/m.gguf") == count


def test_a_sha256_of_the_aikitfile_saves_the_download(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"), sha256=digest(model))
    done(tmp_path, "lock")
    assert not in_store("m.gguf", model)
    assert only_file(tmp_path)["size"] == len(model)
    assert only_file(tmp_path)["gguf"]["contextLength"] == 4096
    files.files["/m.gguf"] = model + b"changed"
    assert "it is another file" in refused(tmp_path, "fetch")
    files.files["/m.gguf"] = model[:-1] + bytes([model[-1] ^ 1])
    said = refused(tmp_path, "fetch")
    assert digest(model) in said
    assert digest(files.files["/m.gguf"]) in said
    assert not in_store("m.gguf", model)
    files.files["/m.gguf"] = model
    done(tmp_path, "fetch")
    assert in_store("m.gguf", model)


def test_one_failure_of_several_loses_nothing(tmp_path: Path, files: FileServer, model: bytes) -> None:
    """The old lock stays, every failure is named, and what arrived is not downloaded again."""
    files.files["/a.gguf"] = model
    write(tmp_path, ("a", f"{files.url}/a.gguf"), ("b", f"{files.url}/b.gguf"), ("c", f"{files.url}/c.gguf"))
    (tmp_path / "aikit.lock").write_text('{"version": 1, "models": []}\n')
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:4:" in said
    assert "aikitfile.yaml:5:" in said
    assert "answered 404" in said
    assert (tmp_path / "aikit.lock").read_text() == '{"version": 1, "models": []}\n'
    files.files["/b.gguf"] = files.files["/c.gguf"] = model + b"2"
    done(tmp_path, "lock")
    got = [request.method for request in files.requests if request.path == "/a.gguf"]
    assert got == ["GET", "HEAD"]
    assert not list((tmp_path / "cache/aikit-nix/downloads").glob("*.pins"))


def test_what_was_learned_is_forgotten_where_the_file_changed(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/a.gguf"] = model
    write(tmp_path, ("a", f"{files.url}/a.gguf"), ("b", f"{files.url}/b.gguf"))
    refused(tmp_path, "lock")
    files.files["/a.gguf"] = files.files["/b.gguf"] = model + b"new"
    done(tmp_path, "lock")
    assert [entry["files"][0]["sha256"] for entry in locked(tmp_path)] == [digest(model + b"new")] * 2


def test_all_shards_behind_a_url(tmp_path: Path, files: FileServer, model: bytes) -> None:
    for number in (1, 2):
        files.files[f"/my dir/my m-0000{number}-of-00002.gguf"] = model + bytes([number])
    write(tmp_path, ("m", f"{files.url}/my%20dir/my%20m-00001-of-00002.gguf?download=true"))
    done(tmp_path, "lock")
    (entry,) = locked(tmp_path)
    assert [(file["path"], file["sha256"]) for file in entry["files"]] == [
        (f"/models/my m-0000{number}-of-00002.gguf", digest(model + bytes([number]))) for number in (1, 2)
    ]
    del files.files["/my dir/my m-00002-of-00002.gguf"]
    assert "my m-00002-of-00002.gguf" in refused(tmp_path, "lock", "--update")


def test_one_source_under_two_names(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("a/x", f"{files.url}/m.gguf"), ("b/x", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    assert [(entry["name"], entry["files"][0]["path"]) for entry in locked(tmp_path)] == [
        ("a/x", "/models/a/m.gguf"),
        ("b/x", "/models/b/m.gguf"),
    ]
    done(tmp_path, "gen", "--elsewhere")
    write(tmp_path, ("a", f"{files.url}/m.gguf"), ("b", f"{files.url}/m.gguf"))
    assert "lands on /models/m.gguf" in refused(tmp_path, "lock")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(401), "asks for a login"),
        (Failure(403), "does not let you have it"),
        (Failure(404), "is not there"),
    ],
)
def test_refusals_of_a_web_server(tmp_path: Path, files: FileServer, failure: Failure, message: str) -> None:
    files.files["/m.gguf"] = b"x"
    files.failures["/m.gguf"] = [failure] * 9
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = refused(tmp_path, "lock")
    assert message in said
    assert "aikitfile.yaml:3:" in said
    assert not (tmp_path / "aikit.lock").exists()


def test_a_web_server_that_misbehaves(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    files.failures["/m.gguf"] = [
        Failure(cut=1000),
        Failure(503, {"Retry-After": "0"}),
        Failure(429, {"Retry-After": "1"}),
        Failure(cut=100_000),
    ]
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["sha256"] == digest(model)


def test_a_redirect_to_another_host(tmp_path: Path, files: FileServer, hub: HuggingFace, model: bytes) -> None:
    commit = hub.repository().commit({"m.gguf": model})
    files.redirects["/m.gguf"] = f"{hub.cdn_url}/ns/repo/{commit}/m.gguf?X-Amz-Signature={SIGNATURE}"
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = done(tmp_path, "--verbose", "lock")
    assert only_file(tmp_path)["url"] == f"{files.url}/m.gguf"
    assert SIGNATURE not in said


@pytest.mark.parametrize(
    "query",
    ["token=x", "access_token=x", "X-Amz-Signature=x", "sig=x", "apikey=x", "api_key=x", "password=x", "private_token=x",
     "Signature=x", "x-goog-signature=x", "X-Amz-Credential=x", "key=x", "auth=x", "AWSAccessKeyId=x", "secret=x"],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_early(tmp_path: Path, query: str) -> None:
    write(tmp_path, ("m", f"https://example.com/m.gguf?{query}"))
    for command in ("check", "lock", "gen"):
        assert "carries a secret (" in refused(tmp_path, command)


@pytest.mark.parametrize("query", ["download=true", "author=x", "keyword=x", "monkey=x", "tokenizer=x", "v=1", "raw"])
def test_a_url_with_a_harmless_query(tmp_path: Path, files: FileServer, model: bytes, query: str) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf?{query}"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["url"] == f"{files.url}/m.gguf?{query}"


# --- How it is written


@pytest.mark.parametrize(
    ("text", "url", "file"),
    [
        ("https://h.example/a%20b/m.gguf", "https://h.example/a%20b/m.gguf", "m.gguf"),
        ("https://h.example/é/m.gguf#x", "https://h.example/%C3%A9/m.gguf#x", "m.gguf"),
        # brackets and braces would be patterns to curl
        ("http://h.example:8080/m[1]{a}.gguf", "http://h.example:8080/m%5B1%5D%7Ba%7D.gguf", "m[1]{a}.gguf"),
        ("http://[::1]:80/d/m.gguf//", "http://[::1]:80/d/m.gguf//", "m.gguf"),
        ("https://h.example/a%2Fm%5B1%5D.gguf?v=1", "https://h.example/a%2Fm%5B1%5D.gguf?v=1", "m[1].gguf"),
    ],
)
def test_a_url_is_asked_for_as_it_was_meant(text: str, url: str, file: str) -> None:
    assert (http.read(text).url, http.read(text).file) == (url, file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://h.example/a b", "white space"),
        ("https://h.example\\@evil.example/m", "backslash"),
        ("https://me:secret@h.example/m", "user name or password"),
        ("https://h.example:99999/m", "host and port"),
        ("https://[::1/m", "host and port"),
        ("https:///m", "no usable host"),
        ("https://-h.example/m", "no usable host"),
        ("https://h_$(id).example/m", "no usable host"),
        ("https://" + "a." * 200 + "example/m", "no usable host"),
        ("https://h.example/m%zz", "two hex digits"),
        ("https://h.example/%ff.gguf", "not UTF-8"),
        ("https://h.example/m%0a.gguf", r"U\+000A"),
        ("https://h.example/d/%2e%2e", "is a folder"),
        ("https://h.example/", "names no file"),
        ("https://h.example/" + "m" * 256, "more than 255 bytes"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as refused:
        http.read(text)
    assert "secret@" not in str(refused.value)


def test_another_shard_is_asked_for_beside_the_first() -> None:
    first = http.read("https://h.example/d/m-00001-of-00002.gguf?download=true")
    assert http.beside(first, "m 2#.gguf") == "https://h.example/d/m%202%23.gguf?download=true"
