"""Local model files on their way into the Nix store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from aikit_nix import plan, store
from aikit_nix.aikitfile import Aikitfile, parse
from aikit_nix.errors import AikitError


def local_model(source: str, sha256: str = "") -> Aikitfile:
    text = f"apiVersion: v1alpha1\nmodels:\n  - name: m\n    source: {source}\n"
    text += f'    sha256: "{sha256}"\n' if sha256 else ""
    return parse(text.encode(), "aikitfile.yaml")[0]


def add(source: str, folder: Path) -> list[Path]:
    aikitfile = local_model(source)
    planned, _ = plan.make(aikitfile, plan.Options(), store.hash_local(aikitfile, folder))
    return store.add_local(aikitfile, planned, folder)


def test_store_path_is_nixs_own() -> None:
    # nix-store --add-fixed sha256 hello.gguf, of a file that holds "hello"
    expected = "/nix/store/nb0gl9cdzg9a8r446gb6rhxidrhn8qs3-hello.gguf"
    assert str(store.store_path("hello.gguf", hashlib.sha256(b"hello").hexdigest())) == expected


@pytest.mark.parametrize("name", ["plain.gguf", "my model~1.gguf"])
@pytest.mark.usefixtures("nix")
def test_a_local_file_enters_the_store_once_under_its_name(tmp_path: Path, name: str) -> None:
    content = f"{tmp_path}".encode()  # new in each run
    (tmp_path / name).write_bytes(content)
    path = store.store_path(plan.store_name(name), hashlib.sha256(content).hexdigest())
    assert not path.exists()
    assert add(name, tmp_path) == [tmp_path / name]
    assert path.read_bytes() == content
    assert add(name, tmp_path) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == [name]


@pytest.mark.usefixtures("nix")
def test_a_symlink_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(f"{tmp_path}".encode())
    (tmp_path / "link.gguf").symlink_to("blob")
    assert add("link.gguf", tmp_path) == [tmp_path / "link.gguf"]
    digest = hashlib.sha256(f"{tmp_path}".encode()).hexdigest()
    assert store.store_path("link.gguf", digest).is_file()


def test_missing_and_wrong_files_are_all_reported(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"x")
    for source, sha256, message in [
        ("nowhere.gguf", "", "error: aikitfile.yaml:4:13: source 'nowhere.gguf' does not exist"),
        ("folder", "", "error: aikitfile.yaml:4:13: source 'folder' is a folder"),
        (
            "x.gguf",
            "0" * 64,
            f"error: aikitfile.yaml:5:13: source 'x.gguf' has the sha256 {hashlib.sha256(b'x').hexdigest()}",
        ),
    ]:
        with pytest.raises(AikitError) as raised:
            store.hash_local(local_model(source, sha256), tmp_path)
        assert str(raised.value).startswith(message)
