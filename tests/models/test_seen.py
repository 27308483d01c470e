"""What a lock claims of models' bytes is compared with the bytes, wherever they are or come by."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import pytest

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base import hashing
from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import Digests
from aikit_nix.flakes import materials
from aikit_nix.image import layout, push
from aikit_nix.models import lock, remote, seen
from aikit_nix.nix import setup, store
from support import layouts, recipes
from support.command import aikit_nix
from support.file_server import FileServer
from support.locks import done, refused, write

PATH = "/models/m.gguf"

pytestmark = pytest.mark.usefixtures("nix")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def lie(lock: Path, **changes: Any) -> None:
    """Change what a lock claims of its first file."""
    content = json.loads(lock.read_text())
    file = content["models"][0]["files"][0]
    for name, value in changes.items():
        file[name] = file[name] | value if isinstance(value, dict) else value
    lock.write_text(json.dumps(content))


OTHER = {"layer": {"digest": f"sha256:{'6' * 64}"}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A local model, pinned, its flake written."""
    (tmp_path / "m.gguf").write_bytes(b"weights" + os.urandom(5000))  # no JSON by chance
    write(tmp_path, ("m", "m.gguf"))
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian", "-o", "flake")
    return tmp_path


@pytest.mark.parametrize("claim", [OTHER, {"blake3": "6" * 64}])
@pytest.mark.parametrize("where", ["here", "in the store", "gone, but it was here"])
def test_a_claim_that_is_another_than_the_bytes_is_refused(project: Path, claim: dict[str, Any], where: str) -> None:
    lie(project / "aikit.lock", **claim)
    if where != "here":
        (project / "m.gguf").unlink()
    if where == "in the store":
        for file in (project / "cache/aikit-nix/seen").iterdir():
            file.unlink()
    for command in (["lock", "--check", "--models"], ["fetch"], ["gen", "--packages", "debian", "-o", "flake"]):
        assert "claims that the" in refused(project, *command)


def test_a_claim_of_a_header_is_compared_too(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "m.gguf")
    write(tmp_path, ("m", "m.gguf"))
    done(tmp_path, "lock")
    content = json.loads((tmp_path / "aikit.lock").read_text())
    del content["models"][0]["files"][0]["gguf"]["memory"]  # an older version's lock
    (tmp_path / "aikit.lock").write_text(json.dumps(content))
    done(tmp_path, "gen", "--packages", "debian", "--flake", "flake")
    lie(tmp_path / "aikit.lock", gguf={"contextLength": 7})
    assert "claims that the GGUF header" in refused(tmp_path, "gen", "--packages", "debian", "--flake", "flake")


@pytest.mark.parametrize("command", ["attest", "sign", "reproduce"])
def test_nothing_is_stated_of_a_flake_whose_claims_are_others(project: Path, command: str) -> None:
    """Also of one that was written elsewhere, from such a lock: before anything is built or asked for."""
    plan = project / "flake/aikit/plan.json"
    content = json.loads(plan.read_text())
    content["models"][0]["layer"]["digest"] = f"sha256:{'6' * 64}"
    plan.write_text(json.dumps(content))
    arguments = {"attest": ["localhost:1/x:1"], "sign": ["localhost:1/x:1", "--key", "k"], "reproduce": []}[command]
    for _ in range(2):  # also where nothing is remembered, and the store has the file
        said = refused(project, command, *arguments, "--flake", "flake")
        assert f"claims that the layer of {PATH} is sha256:666" in said
        for file in (project / "cache/aikit-nix/seen").iterdir():
            file.unlink()


def test_what_was_never_seen_is_said(tmp_path: Path) -> None:
    recipes.write(tmp_path, os.urandom(100))
    for file in (tmp_path / "cache").rglob("*.json"):
        file.unlink()
    found = materials.read(tmp_path)
    with pytest.raises(AikitError, match=r"were never seen on this machine, .*--unseen"):
        found.compared(unseen=False)
    assert [each.seen for each in found.compared(unseen=True).models] == [False]
    for command in (["reproduce"], ["attest", "localhost:1/x:1"]):
        done = aikit_nix(*command, "--flake", ".", cwd=tmp_path)
        assert "were never seen on this machine" in done.stderr


def test_where_nix_cannot_be_asked_the_store_is_left_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pin,) = [pin for _, pin in lock.parse((project / "aikit.lock").read_bytes(), "aikit.lock").files()]
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(setup, "problem", lambda: "no Nix")
    assert seen.derived([(PATH, pin)]) == {}
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert seen.derived([(PATH, pin)])[PATH].layer == pin.layer


def test_lock_derives_a_wrong_claim_again(project: Path) -> None:
    right = (project / "aikit.lock").read_text()
    lie(project / "aikit.lock", **OTHER)
    done(project, "lock")
    assert (project / "aikit.lock").read_text() == right


def test_a_download_is_compared_as_it_comes(tmp_path: Path, files: FileServer) -> None:
    data = os.urandom(5000)
    files.files["/m.gguf"] = data
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    held = store.store_path("m.gguf", hashlib.sha256(data).hexdigest())
    assert held.is_file()
    lie(tmp_path / "aikit.lock", **OTHER)
    assert "claims that the layer" in refused(tmp_path, "fetch")


def test_a_file_that_changes_makes_no_fact_untrue(tmp_path: Path) -> None:
    """Facts are kept under the hash of the bytes that they were derived from, not under a file's name or times."""
    file = tmp_path / "m.gguf"
    first, second = os.urandom(5000), os.urandom(5000)
    pins = []
    for data in (first, second):
        file.write_bytes(data)
        os.utime(file, (1, 1))
        digests = hashing.hash_file(file, remote.frame_of(PATH))
        pin = Pin(digests.sha256, digests.size, digests.blake3, remote.layer_of(PATH, digests))
        seen.remember(PATH, pin)
        pins.append(pin)
    for pin in pins:
        assert seen.recall(PATH, Pin(pin.sha256)) == pin
        assert seen.recall("/models/other.gguf", pin) is None
    assert seen.check([(PATH, pins[0])], "here") == []
    with pytest.raises(AikitError, match="claims that the layer"):
        seen.check([(PATH, replace(pins[0], layer=pins[1].layer))], "here")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": "/etc/x"}', b"\xff"])
def test_what_is_remembered_badly_is_derived_again(tmp_path: Path, content: bytes) -> None:
    pin = Pin("1" * 64, 1, "2" * 64, LayerPin(f"sha256:{'3' * 64}", 4096 + 512 + 1024))
    seen.remember(PATH, pin)
    assert seen.recall(PATH, pin) == pin
    (kept,) = (tmp_path / "cache/aikit-nix/seen").iterdir()
    kept.write_bytes(content)
    assert seen.recall(PATH, pin) is None
    assert seen.check([(PATH, pin)], "here") == [PATH]


def test_a_layer_that_the_registry_has_is_not_pushed_for_another(tmp_path: Path) -> None:
    """The model lies in the store, the image claims another layer of the same size: the registry may have that."""
    data = os.urandom(5000)
    folder = layouts.write(tmp_path / "image", {PATH: data}, {"x": b"1"})
    (tmp_path / "m").write_bytes(data)
    store.add(tmp_path / "m", "m.gguf", hashlib.sha256(data).hexdigest())
    image = layout.read_layout(folder)
    at = next(index for index, layer in enumerate(image.layers) if layer.model)
    layers = list(image.layers)
    layers[at] = replace(layers[at], digest=f"sha256:{'6' * 64}")
    with pytest.raises(AikitError, match=f"claims that the layer of {PATH} is sha256:666"):
        push.of_image(replace(image, layers=tuple(layers)))


# --- What is remembered of a file of this machine


def expected(data: bytes, path: str = PATH) -> Digests:
    frame = remote.frame_of(path)(len(data))
    layer = hashlib.sha256(frame.header + data + frame.trailer).hexdigest()
    return Digests(len(data), hashlib.sha256(data).hexdigest(), blake3.blake3(data).hexdigest(), layer)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read for their hashes."""
    read: list[Path] = []
    hash_file = hashing.hash_file

    def watched(path: Path, *arguments: Any) -> Digests:
        read.append(path)
        return hash_file(path, *arguments)

    monkeypatch.setattr(hashing, "hash_file", watched)
    return read


def settled(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose last change, by the clock that the code sees, was long ago."""
    path.write_bytes(data)
    now = path.stat().st_ctime_ns + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    return path


def test_a_file_at_rest_is_read_once(tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = settled(tmp_path / "f", b"content", monkeypatch)
    assert [seen.hashed(PATH, file) for _ in range(2)] == [expected(b"content")] * 2
    assert len(reads) == 1
    # another place in the image: the layer's digest is not known
    assert seen.hashed("/models/other", file) == expected(b"content", "/models/other")
    assert len(reads) == 2
    assert seen.hashed(PATH, file) == expected(b"content")
    assert len(reads) == 2


@pytest.mark.parametrize("by", ["content", "replace", "touch"])
def test_a_changed_file_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    file = settled(tmp_path / "f", b"before", monkeypatch)
    seen.hashed(PATH, file)
    before = file.stat()
    time.sleep(0.05)  # a file system's clock ticks 100 to 1000 times a second
    data = b"before" if by == "touch" else b"behind"
    if by == "replace":
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(file)
    else:
        file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p and tar do
    assert seen.hashed(PATH, file) == expected(data)
    assert len(reads) == 2


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path: Path, reads: list[Path]) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for _ in range(2):
        seen.hashed(PATH, tmp_path / "f")
    assert len(reads) == 2
    assert not (tmp_path / "cache/aikit-nix/digests").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"g" * 64, b"1" * 63, b"1" * 65, b"1" * 64 + b"\n", b"[" * 99999, b"\xff"]
)
def test_a_damaged_note_is_ignored(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    file = settled(tmp_path / "f", b"content", monkeypatch)
    seen.hashed(PATH, file)
    (note,) = (tmp_path / "cache/aikit-nix/digests").iterdir()
    note.write_bytes(damage)
    assert seen.hashed(PATH, file) == expected(b"content")
    assert seen.hashed(PATH, file) == expected(b"content")
    assert len(reads) == 2


def test_no_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = settled(tmp_path / "f", b"content", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert seen.hashed(PATH, file) == expected(b"content")


@pytest.mark.parametrize("kind", ["pipe", "nothing"])
def test_what_is_no_file_is_said(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "f")
    with pytest.raises(AikitError, match=r"cannot be read: (it is a pipe|no such file)"):
        seen.hashed(PATH, tmp_path / "f")


def test_of_a_path_that_no_lock_can_have_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image from elsewhere may call a layer anything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in ("/etc/passwd", "/models/../x", "/models/\x1b"):
        seen.remember(path, Pin("1" * 64, 1))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_files_are_counted_that_were_seen_here(tmp_path: Path) -> None:
    """Not models, of which one may have several, and none whose hash and size the lock knows and nobody here its bytes."""
    recipes.write(tmp_path, os.urandom(100))
    lock = json.loads((tmp_path / "aikit.lock").read_text())
    (file,) = lock["models"][0]["files"]
    del file["layer"], file["blake3"]
    (tmp_path / "aikit.lock").write_text(json.dumps(lock))
    for each in (tmp_path / "cache").rglob("*.json"):
        each.unlink()
    done = aikit_nix("lock", "--check", "--models", cwd=tmp_path)
    assert done.stdout.startswith("0 of 1 file seen here, and what aikit.lock claims of them is so"), done.stderr
