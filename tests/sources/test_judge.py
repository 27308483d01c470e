"""What a file is, by its first bytes and its header, whatever its name says."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from aikit_nix.sources import judge
from aikit_nix.sources.role import Role
from support import tiny_gguf
from support.command import aikit_nix

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 260384\n"


def zipped() -> bytes:
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("m.gguf", b"GGUF")
    return packed.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("m.gguf"))
    return packed.getvalue()


def safetensors(length: int = 0x40) -> bytes:
    head = json.dumps({"x": {"dtype": "F32"}}).encode().ljust(length + 0x100)
    return struct.pack("<Q", len(head)) + head


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_gguf.make(tmp_path_factory.mktemp("judge") / "m.gguf").read_bytes()


def look(data: bytes, name: str = "m.gguf", **known: bool) -> object:
    return judge.look(io.BytesIO(data), name, len(data), **known)


def made(folder: Path, name: str, architecture: str, kind: str | None = None, **numbers: int) -> Path:
    writer = gguf.GGUFWriter(folder / name, architecture)
    if kind:
        writer.add_type(kind)
    for key, number in numbers.items():
        writer.add_uint16(key.replace("_", "."), number)
    writer.add_tensor("x", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / name


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        (b"\xef\xbb\xbf\n  <HTML>", "an HTML page"),
        (b'{"error": "Repository not found"}', "a JSON text"),
        (POINTER, "a Git LFS pointer"),
        (gzip.compress(b"GGUF", mtime=0), "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "compressed with zstd"),
        (b"\xfd7zXZ\x00", "compressed with xz"),
        (b"BZh91AY", "compressed with bzip2"),
        (zipped(), "a ZIP archive"),
        (tarred(), "a tar archive"),
        (safetensors(), "a safetensors file"),
        (b"tjgg\x03\x00\x00\x00", "of GGML, the format before GGUF"),
        (b"", "is empty"),
        (b"no GGUF at all", "does not begin with the letters GGUF"),
    ],
)
def test_what_is_no_gguf_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(judge.UnfitError, match=f"is no GGUF: it .*{what}|is no GGUF: it {what}"):
        look(data)
    with pytest.raises(judge.UnfitError):
        look(data, "llama3.2", is_gguf=True)


def test_other_files_are_what_they_are() -> None:
    for name in ("tokenizer.json", "README.md", "config.yaml", "model.zip"):
        for data in (b"{}", b"<html>", zipped(), b""):
            assert look(data, name) is None
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert look(safetensors(), name) is None
        for data in (b"<html>", b'{"error": 1}'):
            with pytest.raises(judge.UnfitError, match="is no model: it is"):
                look(data, name)
    with pytest.raises(judge.UnfitError, match="is no model: it is a Git LFS pointer"):
        look(POINTER, "anything")


@pytest.mark.parametrize("length", [0x0A, 0x3C, 0x5B, 0x7B])  # the line's end, <, [ and {
def test_a_binary_that_begins_as_a_text_does_is_none(length: int) -> None:
    weights = safetensors(length)
    assert weights[0] == length
    assert look(weights, "model.safetensors") is None
    with pytest.raises(judge.UnfitError, match="is no GGUF: it is a safetensors file"):
        look(weights)
    with pytest.raises(judge.OddError):
        look(weights[:1] + b"\x00\xfe" * 40)


def test_half_a_file_is_refused_wherever_it_ends(model: bytes) -> None:
    assert look(model)
    for size in (5, 600, len(model) // 2, len(model) - 1):
        with pytest.raises(judge.UnfitError, match=r"is cut off|ends within its header"):
            look(model[:size])


def test_versions_that_no_engine_reads(model: bytes) -> None:
    with pytest.raises(judge.UnfitError, match="it is a big-endian GGUF"):
        look(b"GGUF" + struct.pack(">I", 3) + model[8:])
    for version in (0x10001, 1, 4):
        with pytest.raises(judge.UnfitError, match="it is GGUF version"):
            look(b"GGUF" + struct.pack("<I", version) + model[8:])


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf.part1of3",
        "m.gguf-split-a",
        "m.gguf.part-00001",
        "m.gguf.001",
        "m.gguf.aa",
        "m.gguf.part2",
        "M.GGUF-part-b",
    ],
)
def test_pieces_that_have_to_be_joined_are_refused(name: str) -> None:
    with pytest.raises(judge.UnfitError, match="is a piece of a GGUF"):
        look(b"GGUF", name)


@pytest.mark.parametrize("name", ["m.gguf", "m-part1.gguf", "m.gguf.gz", "m-00001-of-00002.gguf", "gguf.a.json"])
def test_what_is_no_piece(name: str) -> None:
    assert not judge.is_piece(name)


@pytest.mark.parametrize(
    ("architecture", "kind", "role"),
    [
        ("llama", "model", Role.MODEL),
        ("llama", None, Role.MODEL),
        ("clip", "mmproj", Role.PROJECTOR),
        ("clip", None, Role.PROJECTOR),
        ("llama", "adapter", Role.ADAPTER),
        ("eagle3", None, Role.DRAFT),
        ("wavtokenizer-dec", None, Role.VOCODER),
        ("controlvector", None, Role.OTHER),
        ("llama", "imatrix", Role.OTHER),
    ],
)
def test_what_a_gguf_is_for(tmp_path: Path, architecture: str, kind: str | None, role: Role) -> None:
    header = judge.of_file(made(tmp_path, "x.gguf", architecture, kind))
    assert header
    assert (header.role, header.facts.role) == (role, role)


def test_shards_have_the_names_that_llama_cpp_looks_for(tmp_path: Path) -> None:
    assert judge.of_file(made(tmp_path, "m-00002-of-00003.gguf", "llama", split_no=1, split_count=3))
    for name in ("m.gguf", "m-2-of-3.gguf", "m-00002-of-00004.gguf", "m-00001-of-00003.gguf"):
        with pytest.raises(judge.UnfitError, match="is file 2 of a model of 3, by its header"):
            judge.of_file(made(tmp_path, name, "llama", split_no=1, split_count=3))


def test_every_door_refuses_a_page_and_one_option_lets_it_in(tmp_path: Path) -> None:
    """Local files; what comes from elsewhere is in tests/models/test_fetch.py."""
    (tmp_path / "page.gguf").write_bytes(b"<!DOCTYPE html>")
    (tmp_path / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - {name: a page, source: page.gguf}\n")
    init = aikit_nix("init", "--model", "page.gguf", "-o", "other.yaml", cwd=tmp_path)
    assert "page.gguf is no GGUF: it is an HTML page" in init.stderr
    for command in (["lock"], ["check"], ["gen", "--packages", "debian", "-o", "flake"]):
        done = aikit_nix(*command, cwd=tmp_path)
        assert (done.returncode, "page.gguf is no GGUF: it is an HTML page" in done.stderr) == (1, True)
        assert "aikit-nix lock --as-is 'a page'" in done.stderr
    assert not (tmp_path / "aikit.lock").exists()
    assert aikit_nix("lock", "--as-is", "a page", cwd=tmp_path).returncode == 0
    for command in (["lock"], ["check"], ["gen", "--packages", "debian", "-o", "flake"]):
        done = aikit_nix(*command, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("HTML")) == (0, 0)
