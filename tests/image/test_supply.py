"""Models that a push takes from elsewhere than the Nix store: nothing of them comes onto this disk."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aikit_nix.image import layout
from aikit_nix.models import layer as model_layer
from aikit_nix.nix import store
from aikit_nix.registry.reference import digest_of
from support import container, flakes, image, locks, registry, tiny_gguf, wire
from support.command import aikit_nix
from support.fake_registry import FakeRegistry
from support.file_server import Failure, FileServer
from support.hugging_face import HuggingFace
from support.image_fixtures import generate
from support.pushes import MIB

pytestmark = pytest.mark.usefixtures("nix", "own_folders")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an aikitfile; what else the tests keep lies beside it."""
    flakes.environment(tmp_path, monkeypatch)
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def push(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return aikit_nix("push", "--flake", "flake", *arguments, cwd=folder)


def pushed(folder: Path, *arguments: str) -> str:
    done = push(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(folder: Path, *arguments: str) -> str:
    done = push(folder, *arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def another(folder: Path) -> Iterator[str]:
    """The address of a registry that has nothing."""
    (folder / "another").mkdir()
    with registry.serve(folder / "another") as running:
        yield running.address


def layer_of(path: str, data: bytes) -> str:
    return digest_of(model_layer.header(path, len(data)) + data + model_layer.trailer(len(data)))


def stored(folder: Path) -> int:
    """The bytes of all that lies below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def locked(folder: Path, files: FileServer, data: bytes) -> Path:
    """A project of a model on a web server, whose sha256 is known, and its flake."""
    files.files["/m.gguf"] = data
    locks.write(folder, ("m", files.url + "/m.gguf"), sha256=locks.digest(data))
    locks.done(folder, "lock", "--as-is", "m")
    return generate(folder)


def test_from_hugging_face_straight_into_a_registry(
    folder: Path, hub: HuggingFace, address: str, model: bytes, tmp_path: Path
) -> None:
    """The lock knows what Hugging Face says; the rest is known when the last byte was sent, and the flake is as by `fetch`."""
    hub.repository().commit({"m.gguf": model, "n.gguf": model + b"2"})
    locks.write(folder, ("m", "huggingface://ns/repo/m.gguf"), ("n", "huggingface://ns/repo/n.gguf"))
    locks.done(folder, "lock")
    generate(folder)
    name = pushed(folder, f"{address}/a/m:1")
    assert not locks.in_store("m.gguf", model)
    assert stored(tmp_path / "cache") < 100_000
    for entry, data in zip(locks.locked(folder), (model, model + b"2"), strict=True):
        (file,) = entry["files"]
        assert file["layer"]["digest"] == layer_of(file["path"], data)
        assert len(file["blake3"]) == 64
    by_push = (folder / "aikit.lock").read_bytes(), (folder / "flake/aikit/plan.json").read_bytes()

    manifest = layout.read_layout(flakes.build(folder / "flake", "manifest"))
    assert name == f"{address}/a/m:1@{manifest.digest}"
    assert [layer.digest for layer in manifest.layers][:2] == [
        layer_of("/models/m.gguf", model),
        layer_of("/models/n.gguf", model + b"2"),
    ]
    sent = hub.sent
    pushed(folder, f"{address}/a/m:2")
    assert hub.sent == sent
    locks.done(folder, "fetch")
    assert by_push == ((folder / "aikit.lock").read_bytes(), (folder / "flake/aikit/plan.json").read_bytes())


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_what_came_from_its_origin_serves(
    folder: Path, files: FileServer, address: str, model: bytes, tmp_path: Path
) -> None:
    locked(folder, files, model)
    pushed(folder, f"{address}/a/m:1")
    assert not locks.in_store("m.gguf", model)
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{address}/a/m:1"]
    subprocess.run([*argv, f"oci:{tmp_path}/pulled:1"], check=True)
    with container.start(image.unpack(tmp_path / "pulled", tmp_path / "root"), tmp_path / "root") as server:
        assert server.chat("Hello") == tiny_gguf.SENTENCE


def test_a_model_that_the_lock_knows_comes_from_its_origin(folder: Path, files: FileServer, address: str) -> None:
    data = os.urandom(3 * MIB)
    locked(folder, files, data)
    first = pushed(folder, f"{address}/a/m:1")
    before = files.count("/m.gguf")
    with another(folder) as other:
        assert pushed(folder, f"{other}/a/m:1").rpartition("@")[2] == first.rpartition("@")[2]
    assert files.count("/m.gguf") == before + 1


def test_both_ends_may_break_and_go_on(folder: Path, files: FileServer, address: str) -> None:
    data = random.Random(3).randbytes(24 * MIB)
    locked(folder, files, data)
    files.failures["/m.gguf"] = [Failure(cut=at) for at in (MIB, 3 * MIB, 0, 5 * MIB, MIB)]
    with wire.tap(address) as tap:
        tap.cut_after = tap.cut_every = 5 * MIB
        tap.cuts = 8
        name = pushed(folder, f"{tap.address}/a/m:1", "--chunk", "5")
        assert tap.cuts == 0
    assert name.rpartition("@")[2] == layout.read_layout(flakes.build(folder / "flake", "manifest")).digest
    assert locks.only_file(folder)["layer"]["digest"] == layer_of("/models/m.gguf", data)


def test_a_wrong_last_byte_is_named_and_nothing_is_published(
    folder: Path, files: FileServer, fake: FakeRegistry
) -> None:
    data = os.urandom(5 * MIB)
    locked(folder, files, data)
    before = (folder / "aikit.lock").read_bytes()
    files.files["/m.gguf"] = data[:-1] + bytes([data[-1] ^ 1])
    said = refused(folder, f"{fake.address}/a/m:1")
    assert "m.gguf: " in said
    assert f"must have {locks.digest(data)}" in said
    assert not fake.blobs
    assert not fake.manifests
    assert not fake.uploads
    assert (folder / "aikit.lock").read_bytes() == before
    files.files["/m.gguf"] = data
    pushed(folder, f"{fake.address}/a/m:1")
    files.files["/m.gguf"] = data[:-1] + bytes([data[-1] ^ 1])
    fake.blobs.clear()
    assert "m.gguf: " in refused(folder, f"{fake.address}/a/m:1", "--modelpack")
    assert not [blob for _, blob in fake.blobs if len(blob) > MIB]


def test_killed_and_again(folder: Path, files: FileServer, address: str) -> None:
    data = os.urandom(8 * MIB)
    locked(folder, files, data)
    files.rate = 8 * MIB
    argv = [sys.executable, "-m", "aikit_nix.cli", "push", "--flake", "flake", f"{address}/a/m:1"]
    with subprocess.Popen(argv, cwd=folder, stderr=subprocess.DEVNULL) as running:
        asked = files.count("/m.gguf")
        while files.count("/m.gguf") == asked:
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    files.rate = None
    assert locks.only_file(folder).get("layer") is None
    pushed(folder, f"{address}/a/m:1")
    assert locks.only_file(folder)["layer"]["digest"] == layer_of("/models/m.gguf", data)


def test_a_registry_that_forgot_the_upload_begins_again(folder: Path, files: FileServer, fake: FakeRegistry) -> None:
    data = os.urandom(6 * MIB)
    locked(folder, files, data)
    fake.ranges = False
    fake.cuts = [4 * MIB]
    pushed(folder, f"{fake.address}/a/m:1")
    assert fake.blobs["a/m", layer_of("/models/m.gguf", data)]


def test_a_local_file_is_sent_from_where_it_lies(folder: Path, address: str) -> None:
    data = os.urandom(2 * MIB)
    (folder / "m.gguf").write_bytes(data)
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n")
    generate(folder, "--elsewhere")
    pushed(folder, f"{address}/a/m:1")
    assert not store.store_path("m.gguf", hashlib.sha256(data).hexdigest()).exists()
    (folder / "m.gguf").write_bytes(data[:-1] + b"x" if data[-1:] != b"x" else data[:-1] + b"y")
    with another(folder) as other:
        assert "m.gguf" in refused(folder, f"{other}/a/m:1")


def test_models_alone_come_from_their_origin(folder: Path, files: FileServer, address: str) -> None:
    data = os.urandom(2 * MIB)
    locked(folder, files, data)
    name = pushed(folder, "--modelpack", f"{address}/a/m:1")
    assert "@sha256:" in name
    assert not locks.in_store("m.gguf", data)


def test_a_flake_that_is_behind_its_lock_sends_nothing(folder: Path, files: FileServer, fake: FakeRegistry) -> None:
    locked(folder, files, os.urandom(MIB))
    (folder / "aikit.lock").write_text((folder / "aikit.lock").read_text() + "\n")
    assert "run `aikit-nix gen`" in refused(folder, f"{fake.address}/a/m:1")
    assert fake.count("POST") == 0
