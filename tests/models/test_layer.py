"""The rule of the model layer: docs/model-layer.md's test vectors, and what other programs read in such a layer."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from aikit_nix.base import data
from aikit_nix.models import layer as model_layer

LONG = "/models/" + "x" * 120 + ".gguf"
VECTORS = {
    "/models/empty.gguf": (b"", 5120, "1a04de0568e3002aa8429aa97dd4229c0b6985fc23939578152c475ed09788c7"),
    "/models/one.gguf": (b"\0", 5632, "71457e943788708e240e7c76dc416d24164cfe84bf3175b15bbc763c2832486f"),
    "/models/block.gguf": (
        bytes(range(256)) * 2,
        5632,
        "c6274d4f8f418920b225c762be6b9dd2a2a332e95871873cef09f10c375a0668",
    ),
    LONG: (b"long", 5632, "1efbde81076dfca99e63c9e97d9a3a05b6b64865c81c7cef71807e77dddebd0a"),
    "/models/模型-ü.gguf": (b"name", 5632, "f04af5e74442e1afb4ca62024099f590c913fdb3a07841b459007597914cb14a"),
    "/models/a/b.gguf": (b"nested", 5632, "2ee9a92d00cedda79e328377e4c6060b901e17a1a4476a4cb957b69d14dadd6e"),
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


@pytest.mark.parametrize("depth", range(1, 20))
def test_the_content_begins_at_a_multiple_of_4096(depth: int) -> None:
    """Also where the other records of the file's head end near the end of a block, so that a longer number moves them on."""
    for length in range(1, 255):
        head = model_layer.header("/d" * depth + "/" + "x" * length, 1)
        assert len(head) % 4096 == 0
        with tarfile.open(fileobj=io.BytesIO(head + bytes(512) + bytes(1024))) as archive:
            *_, file = archive.getmembers()
        assert 512 <= len(file.pax_headers["comment"]) <= 4096


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
    with (tmp_path / "layer.tar").open("wb") as file:
        subprocess.run([*script, "layer", *arguments], stdout=file, check=True)
    assert (tmp_path / "layer.tar").read_bytes() == written
    described = json.loads(subprocess.run([*script, "describe", *arguments], capture_output=True, check=True).stdout)
    assert written == layer("/models/a/b.gguf", b"nested")
    assert described == {"digest": f"sha256:{hashlib.sha256(written).hexdigest()}", "size": len(written)}


MOUNT = """
mount -o loop "$1/disk" "$1/mnt"
cp "$1/model" "$1/mnt/model"
sync -f "$1/mnt"
before=$(df --output=used -k "$1/mnt" | tail -n 1)
"$2" -I "$3" layer /models/m.gguf "$1/mnt/model" > "$1/mnt/layer"
sync -f "$1/mnt"
after=$(df --output=used -k "$1/mnt" | tail -n 1)
echo $((after - before))
sha256sum < "$1/mnt/layer"
"""


@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="btrfs-progs is not installed")
@pytest.mark.parametrize("size", [8 << 20, (8 << 20) + 1], ids=["whole blocks", "a byte more"])
def test_a_file_system_that_can_shares_the_models_blocks(tmp_path: Path, size: int) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "model").write_bytes(os.urandom(size))
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", tmp_path / "disk"], check=True)
    script = str(data.NIX / "image/model_layer.py")
    argv = ["unshare", "--mount", "bash", "-ec", MOUNT, "mount", str(tmp_path), sys.executable, script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "mount" in done.stderr and done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    kilobytes, digest, _ = done.stdout.split()
    assert int(kilobytes) < 1024
    assert f"sha256:{digest}" == model_layer.describe("/models/m.gguf", tmp_path / "model")["digest"]


def test_the_package_and_the_nix_library_have_one_file() -> None:
    assert Path(model_layer.__file__).read_bytes() == (data.NIX / "image/model_layer.py").read_bytes()
