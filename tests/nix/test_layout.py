"""An image put together (nix/image/layout.py) and written as a docker-archive (nix/image/docker_archive.py), without Nix."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base import data
from aikit_nix.models import layer as model_layer
from support.image import unpack

MODEL = "/models/模型 ü.gguf"
CONTENT = b"weights" * 300_000
TEXTS = model_layer.header("/config.yaml", 3) + b"abc" + model_layer.trailer(3)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-IB", str(data.NIX / "image" / name), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, check=False)


def write_spec(folder: Path, **changes: Any) -> Path:
    base = folder / "texts"
    base.mkdir(exist_ok=True)
    layer = {"digest": sha256(TEXTS), "size": len(TEXTS), "created_by": "dockerTools: texts"}
    (base / sha256(TEXTS).removeprefix("sha256:")).write_bytes(TEXTS)
    (base / "layers.json").write_text(json.dumps([layer]))
    (folder / "model.gguf").write_bytes(CONTENT)
    spec = {
        "name": "tiny",
        "tag": "avx",
        "architecture": "arm64",
        "created": 1783791668,
        "config": {"Labels": {"org.opencontainers.image.title": "Ü", "other": "x"}},
        "models": [{"path": MODEL, "layer": model_layer.describe(MODEL, folder / "model.gguf"), "blob": None}],
        "base": [str(base)],
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return folder / "spec.json"


def layout(folder: Path, out: str = "layout", **changes: Any) -> Path:
    done = script("layout.py", write_spec(folder, **changes), folder / out)
    assert done.returncode == 0, done.stderr
    return folder / out


def blob(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    content = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
    assert (sha256(content), len(content)) == (descriptor["digest"], descriptor["size"])
    read: dict[str, Any] = json.loads(content)
    return read


def test_it_says_what_the_image_is(tmp_path: Path) -> None:
    out = layout(tmp_path)
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    manifest = blob(out, entry)
    assert manifest["annotations"] == {"org.opencontainers.image.title": "Ü"}
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert [layer["digest"] for layer in manifest["layers"]] == [
        model_layer.describe(MODEL, tmp_path / "model.gguf")["digest"],
        sha256(TEXTS),
    ]
    config = blob(out, manifest["config"])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert [step["created_by"] for step in config["history"]] == [f"model layer: {MODEL}", "dockerTools: texts"]
    assert {config["created"], *(step["created"] for step in config["history"])} == {"2026-07-11T17:41:08Z"}
    assert config["architecture"] == "arm64"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("tiny", "docker.io/library/tiny:avx"),
        ("me/tiny", "docker.io/me/tiny:avx"),
        ("ghcr.io/me/tiny", "ghcr.io/me/tiny:avx"),
        ("localhost/tiny", "localhost/tiny:avx"),
        ("registry:5000/a/b", "registry:5000/a/b:avx"),
    ],
)
def test_its_name_is_one_for_containerd_and_its_tag_one_for_skopeo(tmp_path: Path, name: str, full: str) -> None:
    (entry,) = json.loads((layout(tmp_path, name=name) / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": full,
        "org.opencontainers.image.ref.name": "avx",
    }


def test_the_models_bytes_make_no_difference_to_it(tmp_path: Path) -> None:
    without = layout(tmp_path)
    described = tmp_path / "described.json"
    described.write_text(json.dumps(model_layer.describe(MODEL, tmp_path / "model.gguf")))
    tar = tmp_path / "model.tar"
    tar.write_bytes(b"".join(model_layer.blocks(MODEL, tmp_path / "model.gguf")))
    with_ = layout(tmp_path, "with", models=[{"path": MODEL, "layer": str(described), "blob": str(tar)}])
    assert (with_ / "index.json").read_bytes() == (without / "index.json").read_bytes()
    assert unpack(with_, tmp_path / "root").names == ("docker.io/library/tiny:avx",)
    assert (tmp_path / "root" / MODEL.lstrip("/")).read_bytes() == CONTENT
    blobs = {file.name for file in (with_ / "blobs/sha256").iterdir()}
    assert blobs - {file.name for file in (without / "blobs/sha256").iterdir()} == {
        hashlib.sha256(tar.read_bytes()).hexdigest()
    }


def test_a_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    tar = tmp_path / "model.tar"
    tar.write_bytes(b"x")
    models = [{"path": MODEL, "layer": {"digest": sha256(b"x"), "size": 2}, "blob": str(tar)}]
    done = script("layout.py", write_spec(tmp_path, models=models), tmp_path / "layout")
    assert done.returncode == 1
    assert "the layer has 1 bytes, and the plan says 2" in done.stderr.decode()


# --- docker-archive


def archive_spec(folder: Path) -> Path:
    spec = {
        "layout": str(layout(folder)),
        "name": "tiny:avx",
        "models": [{"path": MODEL, "file": str(folder / "model.gguf")}],
    }
    (folder / "archive.json").write_text(json.dumps(spec))
    return folder / "archive.json"


def test_the_archive_is_the_same_image(tmp_path: Path) -> None:
    spec = archive_spec(tmp_path)
    done = script("docker_archive.py", spec)
    assert done.returncode == 0, done.stderr
    (tmp_path / "image.tar").write_bytes(done.stdout)
    read = unpack(tmp_path / "image.tar", tmp_path / "root")
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    manifest = blob(tmp_path / "layout", entry)
    assert read.digest == manifest["config"]["digest"]
    assert [layer.digest for layer in read.layers] == [layer["digest"] for layer in manifest["layers"]]
    assert read.names == ("tiny:avx",)
    assert (tmp_path / "root" / MODEL.lstrip("/")).read_bytes() == CONTENT
    assert script("docker_archive.py", spec, "--id").stdout.decode() == f"{read.digest}\n"


def test_for_containerd_the_archive_is_the_layout(tmp_path: Path) -> None:
    done = script("docker_archive.py", archive_spec(tmp_path), "--oci")
    assert done.returncode == 0, done.stderr
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "there"], input=done.stdout, check=True)
    assert (tmp_path / "there/index.json").read_bytes() == (tmp_path / "layout/index.json").read_bytes()
    assert unpack(tmp_path / "there").names == ("docker.io/library/tiny:avx",)


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT[:-1], CONTENT + b"x", b""])
def test_a_model_of_other_bytes_gives_no_image(tmp_path: Path, content: bytes) -> None:
    spec = archive_spec(tmp_path)
    (tmp_path / "model.gguf").write_bytes(content)
    done = script("docker_archive.py", spec)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(
        f"error: the image is not complete: {MODEL} ({tmp_path}/model.gguf) gives sha"
    )
    assert b"manifest.json" not in done.stdout


def test_a_flipped_bit_in_another_layer_gives_no_image(tmp_path: Path) -> None:
    spec = archive_spec(tmp_path)
    (tmp_path / "texts" / hashlib.sha256(TEXTS).hexdigest()).write_bytes(b"\1" + TEXTS[1:])
    done = script("docker_archive.py", spec)
    assert done.returncode == 1
    assert b"is not complete" in done.stderr
    assert b"manifest.json" not in done.stdout


def test_a_model_that_is_gone_is_an_error(tmp_path: Path) -> None:
    spec = archive_spec(tmp_path)
    (tmp_path / "model.gguf").unlink()
    done = script("docker_archive.py", spec)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert b"model.gguf" in done.stderr


def test_a_reader_that_goes_away_is_an_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-IB", str(data.NIX / "image/docker_archive.py"), str(archive_spec(tmp_path))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stderr
        writer.stdout.read(10)
        writer.stdout.close()
        assert writer.stderr.read() == b"error: the reader went away before the image was written\n"
    assert writer.returncode == 1
