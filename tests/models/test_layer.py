"""The rule of the model layer: docs/model-layer.md's test vectors, and what other programs read in such a layer."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from aikit_nix.base import data
from aikit_nix.models import layer as model_layer

LONG = "/models/" + "x" * 120 + ".gguf"
VECTORS = {
    "/models/empty.gguf": (b"", 2048, "de4cdc985a2f2a15f7db42c353e22ae987d8df022f604542630201712f06a472"),
    "/models/one.gguf": (b"\0", 2560, "daac588dc7bf831678afa9ad624d5b133907f86d52fe8081cec54647fbbca3dc"),
    "/models/block.gguf": (
        bytes(range(256)) * 2,
        2560,
        "6381730a10f9d1622b3719b7dafbb399908c969d958eb24643d34d4d8f423d8b",
    ),
    LONG: (b"long", 3584, "dedf5d38b6e198de8ad61acb2d2f07dfeaacfc7f8a75a31509f3642372245465"),
    "/models/模型-ü.gguf": (b"name", 3584, "61048c68ab66af3f513b9d9c70e94ac82b2f0f814c743eff523623f5dd23e87f"),
    "/models/a/b.gguf": (b"nested", 3072, "f9fa28f443d0f4daa792f0f3caab1077f08defa6ba3f7fb1cb6f90ac22619815"),
}
NINE_GIB = 9 << 30


def layer(path: str, content: bytes) -> bytes:
    return model_layer.header(path, len(content)) + content + model_layer.trailer(len(content))


@pytest.mark.parametrize("path", VECTORS)
def test_a_layer_has_the_specified_digest(path: str, tmp_path: Path) -> None:
    content, size, digest = VECTORS[path]
    made = layer(path, content)
    assert (len(made), hashlib.sha256(made).hexdigest()) == (size, digest)
    assert model_layer.layer_size(path, len(content)) == size
    file = tmp_path / "model"
    file.write_bytes(content)
    assert b"".join(model_layer.blocks(path, file)) == made
    assert model_layer.describe(path, file) == {"digest": f"sha256:{digest}", "size": size}


def test_the_document_has_these_vectors() -> None:
    document = (Path(__file__).parents[2] / "docs/model-layer.md").read_text()
    rows = re.findall(r"^\| `.*\| (\d+) \| `(\w{64})` \|$", document, re.MULTILINE)
    assert rows == [(str(size), digest) for _, size, digest in VECTORS.values()]
    assert hashlib.sha256(model_layer.header("/models/large.gguf", NINE_GIB)).hexdigest() in document
    assert f"{model_layer.layer_size('/models/large.gguf', NINE_GIB):,} bytes" in document


@pytest.mark.parametrize("path", VECTORS)
def test_python_reads_it(path: str) -> None:
    content = VECTORS[path][0]
    with tarfile.open(fileobj=io.BytesIO(layer(path, content))) as archive:
        *folders, file = archive.getmembers()
        assert (archive.extractfile(file) or pytest.fail()).read() == content
    assert all(folder.isdir() and folder.mode == 0o755 for folder in folders)
    assert [f"/{folder.name}" for folder in folders] == [str(p) for p in reversed(Path(path).parents)][1:]
    assert (f"/{file.name}", file.mode, file.isreg()) == (path, 0o444, True)
    owners = {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in (*folders, file)}
    assert owners == {(0, 0, "root", "root", 1)}


@pytest.mark.parametrize("path", VECTORS)
def test_gnu_tar_reads_it(path: str, tmp_path: Path) -> None:
    content = VECTORS[path][0]
    argv = ["tar", "-x", "--no-same-owner", "-C", str(tmp_path)]
    done = subprocess.run(argv, input=layer(path, content), capture_output=True, check=True)
    assert done.stderr == b""
    extracted = tmp_path / path.lstrip("/")
    assert extracted.read_bytes() == content
    assert extracted.stat().st_mode & 0o777 == 0o444
    assert extracted.stat().st_mtime == 1


def test_a_file_of_9_gib_has_a_size_that_ustar_cannot_hold(tmp_path: Path) -> None:
    sparse = tmp_path / "layer.tar"
    head = model_layer.header("/models/large.gguf", NINE_GIB)
    size = model_layer.layer_size("/models/large.gguf", NINE_GIB)
    with sparse.open("wb") as file:
        file.write(head)
        file.truncate(size)
    with tarfile.open(sparse) as archive:
        folder, model = archive.getmembers()
        assert (folder.name, model.name, model.size) == ("models", "models/large.gguf", NINE_GIB)
        assert model.offset_data + model.size + 2 * tarfile.BLOCKSIZE == size
    listed = subprocess.run(["tar", "-tvf", sparse], capture_output=True, text=True, check=True, env={"TZ": "UTC"})
    assert re.search(rf"-r--r--r-- root/root +{NINE_GIB} 1970-01-01 00:00 models/large.gguf\n", listed.stdout)


@pytest.mark.parametrize("path", ["models/x", "/", "", "/models/", "/models/../x", "/a//b", "/./a", "/a\0b", "//a"])
def test_a_path_that_is_not_normal_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no absolute path"):
        model_layer.header(path, 1)


def test_a_path_is_no_longer_than_linux_takes() -> None:
    """The heads of a path of 100 kB are gigabytes, and an image's history may say any."""
    with pytest.raises(ValueError, match="longer than Linux takes"):
        model_layer.header("/a" * 2048, 1)
    assert len(model_layer.header("/a" * 2047, 1)) < 10 << 20


def test_as_a_script_it_writes_and_describes(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"nested")
    script = [sys.executable, "-I", str(data.NIX / "image/model_layer.py")]
    arguments = ["/models/a/b.gguf", str(tmp_path / "model")]
    written = subprocess.run([*script, "layer", *arguments], capture_output=True, check=True).stdout
    described = json.loads(subprocess.run([*script, "describe", *arguments], capture_output=True, check=True).stdout)
    assert written == layer("/models/a/b.gguf", b"nested")
    assert described == {"digest": f"sha256:{hashlib.sha256(written).hexdigest()}", "size": len(written)}


def test_the_package_and_the_nix_library_have_one_file() -> None:
    assert Path(model_layer.__file__).read_bytes() == (data.NIX / "image/model_layer.py").read_bytes()
