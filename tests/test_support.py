"""The support code is trusted by other tests: its own promises are checked here."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import gguf
import pytest

import aikit_nix
from aikit_nix.image.rootfs import UnpackError
from support import file_server, image, tiny_gguf, tried
from support.layouts import layer


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


def docker_archive(path: Path, *layers: bytes, diff_ids: list[str] | None = None) -> Path:
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    config = {"config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids or digests}}
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["a:b"], "Layers": names}]
    files = [*zip(names, layers, strict=True), ("config.json", json.dumps(config).encode())]
    path.write_bytes(layer(*files, ("manifest.json", json.dumps(manifest).encode())))
    return path


def test_unpack_reads_layers_and_lays_them_over_each_other(tmp_path: Path) -> None:
    below, above = layer(("d/old", b"2"), ("nix/store/x/y", b"4")), layer(("d/.wh.old", b""), ("d/new", b"5"))
    read = image.unpack(docker_archive(tmp_path / "i.tar", below, above), root := tmp_path / "root")
    assert {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()} == {"new": b"5", "y": b"4"}
    assert read.layers[0].store_paths == ("/nix/store/x",)
    assert (read.size, read.names) == (len(below) + len(above), ("a:b",))


@pytest.mark.parametrize(
    ("content", "diff_ids", "message"),
    [
        (layer(("../x", b"")), None, "leaves the image"),
        (layer(("a", b"")), ["sha256:0"], "the configuration says otherwise"),
        (layer(("a", b"")), ["sha256:0", "sha256:0"], "the configuration says otherwise"),
    ],
)
def test_unpack_refuses(content: bytes, diff_ids: list[str] | None, message: str, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "i.tar", content, diff_ids=diff_ids)
    with pytest.raises(UnpackError, match=message):
        image.unpack(archive, tmp_path / "root")


def an_image(runtime: str) -> image.Image:
    labels = {
        "aikit-nix.packages": "debian",
        "aikit-nix.engine": "llama-server",
        "aikit-nix.engine.version": "1.2 (2020-02-02)",
        "aikit-nix.runtime": runtime,
    }
    return image.Image("", {"architecture": "amd64", "config": {"Labels": labels}}, (), ())


def test_what_was_tried_is_written_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(shutil.copy(tried.FILE, tmp_path))
    before = file.read_text()
    monkeypatch.delenv("AIKIT_TRIED", raising=False)
    tried.record(an_image("sse"), tried.Seen.ANSWERED, file)
    assert file.read_text() == before
    monkeypatch.setenv("AIKIT_TRIED", "1")
    for seen in (tried.Seen.ANSWERED, tried.Seen.STARTED):  # the second start of the day was not asked anything
        tried.record(an_image("sse"), seen, file)
    (added,) = set(file.read_text().splitlines()) - set(before.splitlines())
    assert added.startswith("| debian | llama-server | sse | amd64 | answered | 1.2 | ")
    assert "GPU" in added


def test_an_older_proof_gives_way_to_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(shutil.copy(tried.FILE, tmp_path))
    with file.open("a") as table:
        table.write("| debian | llama-server | sse | amd64 | answered | 1.1 | a machine, a GPU | 2020-02-02 |\n")
    monkeypatch.setenv("AIKIT_TRIED", "1")
    tried.record(an_image("sse"), tried.Seen.STARTED, file)
    (row,) = (line for line in file.read_text().splitlines() if "| sse |" in line)
    assert "| started |" in row
    assert "2020" not in row


def test_every_module_has_tests_under_its_name() -> None:
    """Whoever changes one finds what it promises; commands are tested under the names that users give them."""
    package = Path(aikit_nix.__file__).parent
    modules = {file.relative_to(package) for file in package.rglob("*.py") if not file.name.startswith("__")}
    own = {module for module in modules if module.parts[0] != "commands"}
    tests = Path(__file__).parent
    assert len(own) > 80
    assert [
        str(module) for module in sorted(own) if not (tests / module.with_name(f"test_{module.name}")).is_file()
    ] == []
