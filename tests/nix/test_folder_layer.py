"""One layer of a folder (nix/image/folder_layer.py)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from aikit_nix.base import data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "hi").write_text("hi")
    (root / "hi").chmod(0o600)
    (root / "here").symlink_to("/nowhere")
    (root / "d").mkdir()
    (root / "d" / "\xfc").write_bytes(b"x" * 513)
    return root


def pack(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", str(data.NIX / "image/folder_layer.py"), "texts", str(folder), str(out)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_it_is_the_folder_with_its_permissions(folder: Path, tmp_path: Path) -> None:
    assert pack(folder, tmp_path / "out").returncode == 0
    (layer,) = json.loads((tmp_path / "out/layers.json").read_text())
    file = tmp_path / "out" / layer["digest"].removeprefix("sha256:")
    content = file.read_bytes()
    assert hashlib.sha256(content).hexdigest() == file.name
    assert (layer["size"], layer["created_by"]) == (len(content), "texts")
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        assert archive.extractfile("d/\xfc").read() == b"x" * 513  # type: ignore[union-attr]
    assert [f"{m.name} {m.mode:o}" for m in members if m.name != "d"] == [
        "d/\xfc 644",
        "here 777",
        "hi 600",
        "tmp 1777",
    ]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "root", "root", 1)}


def test_it_depends_on_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "one")
    os.utime(folder / "hi", (9, 9))
    pack(folder, tmp_path / "two")
    assert (tmp_path / "one/layers.json").read_bytes() == (tmp_path / "two/layers.json").read_bytes()


def test_what_is_no_file_is_refused(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    done = pack(folder, tmp_path / "out")
    assert done.returncode == 1
    assert "pipe is neither a file nor a folder nor a symlink" in done.stderr
