"""The layers taken out of a docker-archive (nix/image/layers.py)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base import data

LAYERS = [b"layer one" * 100_000, b"", b"layer one" * 100_000]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def archive(layers: list[bytes] = LAYERS, copies: int = 1) -> bytes:
    config = {
        "architecture": "arm64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in LAYERS]},
        "history": [{"comment": f"step {index}"} for index in range(len(LAYERS))],
    }
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
    manifest = {"Config": "c.json", "RepoTags": None, "Layers": list(files)}
    files |= {"repositories": b"{}", "c.json": json.dumps(config).encode()}
    files["manifest.json"] = json.dumps([manifest] * copies).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def take(stdin: bytes, out: Path) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, str(data.NIX / "image/layers.py"), "engine", str(out)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


def test_the_folder_holds_the_layers_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = take(archive(), out)
    assert done.returncode == 0, done.stderr
    layers: list[dict[str, Any]] = json.loads((out / "layers.json").read_text())
    assert layers == [
        {"digest": sha256(layer), "size": len(layer), "created_by": f"dockerTools: {name}"}
        for layer, name in zip(LAYERS, (*(f"step {index}" for index in range(len(LAYERS) - 1)), "engine"), strict=True)
    ]
    assert [(out / layer["digest"].removeprefix("sha256:")).read_bytes() for layer in layers] == LAYERS
    # Two layers are one file.
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", b"empty"),
        (b"x" * 5000, b""),
        (archive()[:1_500_000], b""),
        (gzip.compress(archive()), b""),
        (archive(copies=2), b"one image"),
        (archive(copies=0), b"one image"),
        (archive(layers=LAYERS[:2]), b"are they compressed"),
        (archive(layers=[gzip.compress(layer) for layer in LAYERS]), b"are they compressed"),
    ],
)
def test_what_is_no_such_archive_is_an_error(stdin: bytes, reason: bytes, tmp_path: Path) -> None:
    done = take(stdin, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: this is not a docker-archive")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
