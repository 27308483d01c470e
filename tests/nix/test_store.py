"""Local model files on their way into the Nix store."""

from __future__ import annotations

import hashlib
import os
import posixpath
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base import process
from aikit_nix.base.errors import AikitError
from aikit_nix.models import fetch
from aikit_nix.models import project as projects
from aikit_nix.nix import store
from support import library
from support.contents import NEW, content, left_in_store


def project(source: str, folder: Path, sha256: str = "") -> projects.Project:
    text = f"apiVersion: v1alpha1\nmodels:\n  - name: m\n    source: {source}\n"
    text += f'    sha256: "{sha256}"\n' if sha256 else ""
    return projects.Project(folder / "aikitfile.yaml", parse(text.encode(), "aikitfile.yaml")[0], None, ())


def add(source: str, folder: Path) -> list[Path]:
    _, local = projects.pin(project(source, folder))
    return [
        file for model, file in local if model.pin and store.add(file, posixpath.basename(model.path), model.pin.sha256)
    ]


@pytest.mark.usefixtures("nix")
def test_store_path_is_nixs_own() -> None:
    for name in ("hello.gguf", "x"):
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        nixs = process.run(["nix-store", "--print-fixed-path", "sha256", sha256, name]).strip()
        assert str(store.store_path(name, sha256)) == nixs


@pytest.mark.parametrize("name", ["plain.gguf", "my model~1.gguf", "x.drv", "x.drv.drv", ".drv"])
@pytest.mark.usefixtures("nix")
def test_a_local_file_enters_the_store_once_under_its_name(tmp_path: Path, name: str) -> None:
    content = NEW
    (tmp_path / name).write_bytes(content)
    path = store.store_path(store.name(name), hashlib.sha256(content).hexdigest())
    assert not path.exists()
    assert add(name, tmp_path) == [tmp_path / name]
    assert path.read_bytes() == content
    assert add(name, tmp_path) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == [name]


@pytest.mark.usefixtures("nix")
def test_a_symlink_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(NEW)
    (tmp_path / "link.gguf").symlink_to("blob")
    assert add("link.gguf", tmp_path) == [tmp_path / "link.gguf"]
    digest = hashlib.sha256(NEW).hexdigest()
    assert store.store_path("link.gguf", digest).is_file()


@pytest.mark.usefixtures("nix")
def test_a_local_file_enters_the_store_in_the_pass_that_hashes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # nothing was hashed before
    data = content(tmp_path, (3 << 20) + 5) + b"one pass"
    file = tmp_path / "big.gguf"
    file.write_bytes(data)
    added: list[Path] = []
    _, local = projects.pin(project("big.gguf", tmp_path), added)
    assert added == [file]
    path = store.store_path("big.gguf", hashlib.sha256(data).hexdigest())
    assert path.read_bytes() == data
    process.run(["nix-store", "--verify-path", path])
    assert fetch.add_local(local) == []  # it is there

    again: list[Path] = []
    projects.pin(project("big.gguf", tmp_path), again)
    assert again == []


@pytest.mark.usefixtures("nix")
def test_a_local_file_that_is_another_than_it_should_be_enters_no_store(tmp_path: Path) -> None:
    data = content(tmp_path, 5000) + b"the wrong one"
    (tmp_path / "wrong.gguf").write_bytes(data)
    added: list[Path] = []
    with pytest.raises(AikitError, match="this is not the file that the aikitfile means"):
        projects.pin(project("wrong.gguf", tmp_path, "0" * 64), added)
    assert added == []
    assert not store.store_path("wrong.gguf", hashlib.sha256(data).hexdigest()).exists()
    assert not left_in_store("wrong.gguf")


def test_missing_and_wrong_files_are_all_reported(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"x")
    for source, sha256, message in [
        ("nowhere.gguf", "", "error: aikitfile.yaml:4:13: source 'nowhere.gguf' does not exist"),
        ("folder", "", "error: aikitfile.yaml:4:13: source 'folder' is an empty folder"),
        (
            "x.gguf",
            "0" * 64,
            f"error: aikitfile.yaml:5:13: source 'x.gguf' has the sha256 {hashlib.sha256(b'x').hexdigest()}",
        ),
    ]:
        with pytest.raises(AikitError) as raised:
            projects.pin(project(source, tmp_path, sha256))
        assert str(raised.value).startswith(message)


@pytest.mark.usefixtures("nix")
def test_a_nix_that_takes_no_stream_gets_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nix-daemon").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nix-daemon").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    file = tmp_path / "blob"
    file.write_bytes(content(tmp_path, 2000))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert store.add(file, "x.gguf", sha256)
    process.run(["nix-store", "--verify-path", store.store_path("x.gguf", sha256)])


@pytest.mark.usefixtures("nix")
def test_other_bytes_than_the_hash_says_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content(tmp_path, 3000))
    with pytest.raises(AikitError, match="has another sha256"):
        store.add(file, "x.gguf", "0" * 64)
    assert not store.store_path("x.gguf", "0" * 64).exists()


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.usefixtures("nix")
def test_a_content_address_makes_nixs_own_path(algorithm: str, recursive: bool) -> None:
    digest = hashlib.new(algorithm, b"content").digest()
    argv = ["nix-store", "--print-fixed-path", *(["--recursive"] if recursive else []), algorithm, digest.hex(), "x.y"]
    address = f"fixed:{'r:' if recursive else ''}{algorithm}:{store.base32(digest)}"
    assert str(store.addressed(address, "x.y")) == process.run(argv).strip()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "text:sha256:" + "0" * 52,
        "fixed:sha256:",
        "fixed:sha256:" + "z" * 52,
        "fixed:sha256:e",
        "fixed:sha3:" + "0" * 52,
    ],
)
def test_what_is_no_content_address_makes_no_path(address: str) -> None:
    assert store.addressed(address, "x") is None


@pytest.mark.usefixtures("nix")
def test_a_file_that_is_consumed_is_on_the_disk_once(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    data = os.urandom(1 << 20)
    size = 100 << 20
    with file.open("wb") as out:
        for number in range(size >> 20):
            out.write(number.to_bytes(8, "big") + data[8:])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    before = file.stat().st_blocks
    assert store.add(file, "m.gguf", sha256, consume=True)
    path = store.store_path("m.gguf", sha256)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert file.stat().st_blocks < before / 2
    library.forget(path)


@pytest.mark.usefixtures("nix")
def test_what_the_store_does_not_take_to_its_end_has_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(os.urandom(1 << 20) * 70)
    monkeypatch.setattr("aikit_nix.nix.store.StoreStream.finish", lambda stream: stream.abort())
    with pytest.raises(AikitError, match=r"did not take .* to its end"):
        store.add(file, "m.gguf", hashlib.sha256(b"").hexdigest(), consume=True)
