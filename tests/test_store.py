"""Local model files on their way into the Nix store."""

from __future__ import annotations

import hashlib
import os
import posixpath
import threading
from pathlib import Path

import pytest

from aikit_nix import hashing, pipeline, process, store
from aikit_nix.errors import AikitError
from aikit_nix.parser import parse
from nixpkgs import newer_nix


def project(source: str, folder: Path, sha256: str = "") -> pipeline.Project:
    text = f"apiVersion: v1alpha1\nmodels:\n  - name: m\n    source: {source}\n"
    text += f'    sha256: "{sha256}"\n' if sha256 else ""
    return pipeline.Project(folder / "aikitfile.yaml", parse(text.encode(), "aikitfile.yaml")[0], None, ())


def add(source: str, folder: Path) -> list[Path]:
    _, local = pipeline.pin(project(source, folder))
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
    content = f"{tmp_path}".encode()  # new in each run
    (tmp_path / name).write_bytes(content)
    path = store.store_path(store.name(name), hashlib.sha256(content).hexdigest())
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
        ("folder", "", "error: aikitfile.yaml:4:13: source 'folder' is an empty folder"),
        (
            "x.gguf",
            "0" * 64,
            f"error: aikitfile.yaml:5:13: source 'x.gguf' has the sha256 {hashlib.sha256(b'x').hexdigest()}",
        ),
    ]:
        with pytest.raises(AikitError) as raised:
            pipeline.pin(project(source, tmp_path, sha256))
        assert str(raised.value).startswith(message)


def content(folder: Path, size: int) -> bytes:
    """Bytes that no other run has."""
    return (f"{folder}".encode() * (size // len(str(folder)) + 1))[:size] if size else b""


@pytest.mark.parametrize("size", [100, 1001, 1007, 1008, (3 << 20) + 5])
@pytest.mark.usefixtures("nix")
def test_a_file_whose_nar_is_known_enters_the_store(tmp_path: Path, size: int) -> None:
    file = tmp_path / "blob"
    file.write_bytes(content(tmp_path, size))
    seen = hashing.hash_file(file, nar_of=store.nar_frame)
    assert store.add(file, "x.gguf", seen.sha256, seen.nar)
    path = store.store_path("x.gguf", seen.sha256)
    assert path.read_bytes() == file.read_bytes()
    process.run(["nix-store", "--verify-path", path])
    assert not store.add(file, "x.gguf", seen.sha256, seen.nar)


@pytest.mark.usefixtures("nix")
def test_a_nar_hash_that_is_wrong_only_costs_time(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content(tmp_path, 2000))
    sha256 = hashing.hash_file(file).sha256
    assert store.add(file, "x.gguf", sha256, "0" * 64)
    process.run(["nix-store", "--verify-path", store.store_path("x.gguf", sha256)])


@pytest.mark.usefixtures("nix")
def test_other_bytes_than_the_hash_says_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content(tmp_path, 3000))
    seen = hashing.hash_file(file, nar_of=store.nar_frame)
    with pytest.raises(AikitError, match="has another sha256"):
        store.add(file, "x.gguf", "0" * 64, seen.nar)
    assert not process.succeeds(["nix-store", "--check-validity", store.store_path("x.gguf", "0" * 64)])


def test_a_newer_nix_takes_the_nar_too(tmp_path: Path, nix: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens the pipe another way."""
    try:
        programs = newer_nix.programs(Path(__file__).parents[1] / "build/newer-nix")
    except newer_nix.NoNewerNixError as reason:
        pytest.skip(str(reason))
    if programs is None:
        pytest.skip("the machine's own Nix is not older than Debian 13's")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "root"))
    file = tmp_path / "blob"
    file.write_bytes(content(tmp_path, (2 << 20) + 5))
    seen = hashing.hash_file(file, nar_of=store.nar_frame)
    monkeypatch.setattr(store, "_added", None)  # what it would fall back to
    assert store.add(file, "x.gguf", seen.sha256, seen.nar)
    path = Path(f"{tmp_path}/root{store.store_path('x.gguf', seen.sha256)}")
    assert path.read_bytes() == file.read_bytes()
    path.parent.chmod(0o755)  # for pytest to remove it


def test_a_pipe_that_is_opened_twice_loses_nothing(tmp_path: Path) -> None:
    """As by a Nix that first tries to map it into memory."""
    file, pipe = tmp_path / "blob", tmp_path / "pipe"
    file.write_bytes(content(tmp_path, 3 << 20))
    os.mkfifo(pipe)
    frame = store.nar_frame(3 << 20)
    feeder = threading.Thread(target=store._feed, args=(pipe, file, frame, threading.Event()))
    feeder.start()
    for _ in range(3):
        os.close(os.open(pipe, os.O_RDONLY))
    with pipe.open("rb") as reader:
        assert reader.read() == frame.header + file.read_bytes() + frame.trailer
    feeder.join()


def test_a_reader_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "blob").write_bytes(b"x")
    ended = threading.Event()
    feeder = threading.Thread(
        target=store._feed, args=(tmp_path / "pipe", tmp_path / "blob", store.nar_frame(1), ended)
    )
    feeder.start()
    ended.set()
    feeder.join(5)
    assert not feeder.is_alive()
