"""A docker-archive turned into an OCI layout."""

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

from aikit_nix import data

LAYERS = [b"layer one" * 100_000, b"", b"layer one" * 100_000]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def archive(
    layers: list[bytes] = LAYERS, tags: list[str] | None = None, labels: dict[str, str] | None = None, copies: int = 1
) -> bytes:
    config = {
        "architecture": "arm64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in LAYERS]},
    }
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
    manifest = {"Config": "c.json", "RepoTags": tags, "Layers": list(files)}
    files |= {"repositories": b"{}", "c.json": json.dumps(config).encode()}
    files["manifest.json"] = json.dumps([manifest] * copies).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def convert(stdin: bytes, out: Path) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, str(data.NIX / "oci-layout.py"), str(out)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


def blob(out: Path, descriptor: dict[str, Any]) -> bytes:
    content: bytes = (out / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert (sha256(content), len(content)) == (descriptor["digest"], descriptor["size"])
    return content


def test_the_layout_holds_the_image(tmp_path: Path) -> None:
    labels = {"org.opencontainers.image.title": "Ü", "other": "x"}
    done = convert(archive(tags=["name:tag"], labels=labels), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "name:tag",
        "org.opencontainers.image.title": "Ü",
    }
    manifest = json.loads(blob(out, entry))
    assert manifest["annotations"] == {"org.opencontainers.image.title": "Ü"}
    assert [blob(out, layer) for layer in manifest["layers"]] == LAYERS
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    config = json.loads(blob(out, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    # Two layers are one blob; `repositories` is none.
    assert len(list((out / "blobs/sha256").iterdir())) == 4


def test_an_image_without_a_name_gets_one(tmp_path: Path) -> None:
    assert convert(archive(), tmp_path / "out").returncode == 0
    (entry,) = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "image:latest"


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
    done = convert(stdin, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: this is not a docker-archive")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
