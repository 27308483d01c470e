"""`aikit-nix push`: what goes over the wire to a real registry, and what becomes of faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Timeouts
from aikit_nix.image import layout, push
from aikit_nix.nix import store
from aikit_nix.registry import reference
from aikit_nix.registry.blob import Blob
from support import layouts, podman, registry, wire
from support.command import aikit_nix
from support.fake_registry import FakeRegistry
from support.pushes import MIB, PATH, refused, send
from support.wire import Wire

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[registry.Registry]:
    if reason := registry.missing():
        pytest.skip(reason)
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry.serve(folder) as running:
        yield running


@pytest.fixture
def tap(server: registry.Registry) -> Iterator[Wire]:
    with wire.tap(server.address) as between:
        yield between


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that remembers nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{time.monotonic_ns()}"))


def digest_in(address: str, repository: str, tag: str) -> str:
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{tag}", method="HEAD")
    request.add_header("Accept", layout.MANIFEST)
    with urllib.request.urlopen(request) as response:
        return str(response.headers["Docker-Content-Digest"])


# --- What goes over the wire


def test_only_what_the_registry_lacks_is_sent(tap: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = os.urandom(20 * MIB)
    first = layouts.make(tmp_path / "first", {PATH: model}, blobs=True)
    done = send(first, f"{tap.address}/a/tiny:1")
    assert (done.uploaded, done.mounted, done.there) == (3, 0, 0)
    assert 20 * MIB < tap.sent < 20.1 * MIB
    assert digest_in(tap.address, "a/tiny", "1") == done.digest == layout.read_layout(first).digest

    # One line of the config changed, on a machine that never pushed, and has no model.
    another_machine(monkeypatch, tmp_path)
    second = layouts.make(tmp_path / "second", {PATH: model}, b"other text")
    before = tap.total
    done = send(second, f"{tap.address}/a/tiny:2")
    assert (done.uploaded, done.there) == (2, 1)
    assert tap.total - before < 25_000

    before = tap.total
    assert send(second, f"{tap.address}/a/tiny:2").uploaded == 0
    assert tap.total - before < 5_000


def test_other_repositories_are_mounted_from(tap: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(5 * MIB)}, blobs=True)
    first = send(full, f"{tap.address}/a/tiny:1")
    before = tap.total
    done = send(full, f"{tap.address}/b/other:1")  # remembered
    assert (done.digest, done.mounted, done.uploaded) == (first.digest, 3, 0)
    assert tap.total - before < 10_000

    another_machine(monkeypatch, tmp_path)
    done = send(full, f"{tap.address}/c/third:1", mount_from=["nobody/has-it", "b/other"])
    assert (done.mounted, done.uploaded) == (3, 0)
    assert digest_in(tap.address, "c/third", "1") == first.digest

    another_machine(monkeypatch, tmp_path)
    assert send(full, f"{tap.address}/d/fourth:1").uploaded == 3


@pytest.mark.usefixtures("nix")
def test_a_model_goes_straight_from_the_store(server: registry.Registry, tmp_path: Path) -> None:
    model = os.urandom(3 * MIB)
    path = "/models/sub/ü 模型.gguf"
    file = layouts.add_to_store(tmp_path, "---.gguf", model)
    thin = layouts.make(tmp_path / "thin", {path: model})
    assert layout.read_layout(thin).model_file(path) != file  # another name, another store path
    assert "/models/sub/ü 模型.gguf" in refused(thin, f"{server.address}/a:1")
    layouts.add_to_store(tmp_path, store.name("ü 模型.gguf"), model)
    done = send(thin, f"{server.address}/a:1", chunk=MIB)
    full = layouts.make(tmp_path / "full", {path: model}, blobs=True)
    assert done.digest == layout.read_layout(full).digest
    pull(f"{server.address}/a:1", tmp_path / "pulled", done.digest)


def test_a_model_that_is_nowhere_is_named_before_anything_is_sent(tap: Wire, tmp_path: Path) -> None:
    model = os.urandom(MIB)
    thin = layouts.make(tmp_path / "thin", {PATH: model})
    said = refused(thin, f"{tap.address}/a/tiny:1", mount_from=["b"])
    assert f"{PATH} (/nix/store/" in said
    assert "`aikit-nix fetch`" in said
    assert tap.sent < 5_000

    full = layouts.make(tmp_path / "full", {PATH: model}, blobs=True)
    send(full, f"{tap.address}/a/tiny:1")
    assert send(thin, f"{tap.address}/a/tiny:2").uploaded == 0


def pull(source: str, to: Path, digest: str) -> None:
    """With skopeo, where it is, comparing digests."""
    if shutil.which("skopeo"):
        argv = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false"]
        subprocess.run([*argv, f"docker://{source}", f"oci:{to}:x"], check=True, capture_output=True)
        assert layout.read_layout(to).digest == digest


def test_podman_pulls_what_was_pushed(server: registry.Registry, tmp_path: Path) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    name = f"{server.address}/a/tiny:1"
    done = send(full, name)
    with podman.storage() as engine:
        engine.run("pull", "--tls-verify=false", name)
        said = engine.run("image", "inspect", "--format", "{{.Digest}} {{.Id}}", name).split()
    assert said == [done.digest, layout.read_layout(full).config_digest.removeprefix("sha256:")]


# --- Logins


def test_a_registry_with_a_login(tmp_path: Path) -> None:
    if reason := registry.missing(login=True):
        pytest.skip(reason)
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    (tmp_path / "registry").mkdir()
    with registry.serve(tmp_path / "registry", ("me", "a secret word")) as server:
        assert f"docker login {server.address}" in refused(full, f"{server.address}/a:1")
        auth = tmp_path / "auth.json"
        auth.write_text(json.dumps({"auths": {server.address: {"auth": "bWU6YSBzZWNyZXQgd29yZA=="}}}))
        done = aikit_nix("push", f"{server.address}/a:1", f"{server.address}/b:2", "--flake", full, "-v", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.tags("a") == ["1"]
        assert server.tags("b") == ["2"]
        assert "a secret word" not in done.stderr
        assert "bWU6YSBzZWNyZXQgd29yZA" not in done.stderr
        digest = layout.read_layout(full).digest
        assert done.stdout.splitlines() == [f"{server.address}/a:1@{digest}", f"{server.address}/b:2@{digest}"]


# --- Faults


def test_a_model_in_the_store_that_is_too_short(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = os.urandom(MIB)
    thin = layouts.make(tmp_path / "thin", {PATH: model})
    file = tmp_path / "tiny.gguf"
    file.write_bytes(model[: MIB // 2])
    monkeypatch.setattr(layout.Image, "model_file", lambda *_: file)
    assert "gives a layer of" in refused(thin, f"{fake.address}/a:1")
    assert not fake.requests


def test_a_registry_that_dies_and_comes_back(server: registry.Registry, tap: Wire, tmp_path: Path) -> None:
    """In mid-push; the client waits for it, and begins the blob again that the registry does not remember."""
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(30 * MIB)}, blobs=True)
    tap.cut_after = 12 * MIB
    assert send(full, f"{tap.address}/a:1", chunk=4 * MIB).uploaded == 3
    assert server.tags("a") == ["1"]

    other = layouts.make(tmp_path / "other", {PATH: os.urandom(60 * MIB)}, blobs=True)

    def restart() -> None:
        start = tap.sent
        while tap.sent < start + 20 * MIB:
            time.sleep(0.001)
        server.kill()
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    image = layout.read_layout(other)
    timeouts = Timeouts(attempts=8, first_wait=0.2)
    how = push.Sending(chunk=2 * MIB, timeouts=timeouts)
    push.push([push.of_image(image)], reference.parse(f"{tap.address}/a:2"), how)
    thread.join()
    assert server.tags("a") == ["1", "2"]
    assert digest_in(server.address, "a", "2") == image.digest


def test_a_registry_that_is_gone_publishes_nothing(server: registry.Registry, tap: Wire, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(40 * MIB)}, blobs=True)

    def kill() -> None:
        while tap.sent < 10 * MIB:
            time.sleep(0.001)
        server.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    said = refused(full, f"{tap.address}/a:1", chunk=2 * MIB)
    thread.join()
    assert f"{tap.address}/a: http://{tap.address}/" in said
    assert server.tags("a") == []
    server.start()
    assert send(full, f"{tap.address}/a:1").digest == digest_in(server.address, "a", "1")


def test_interrupted_it_ends_at_once(server: registry.Registry, tap: Wire, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(40 * MIB)}, blobs=True)
    tap.hold_after = 20 * MIB
    argv = [sys.executable, "-m", "aikit_nix.cli", "push", f"{tap.address}/a:1", "--flake", str(full)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        while tap.sent < 20 * MIB:
            time.sleep(0.001)
        process.send_signal(2)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert server.tags("a") == []


def test_what_is_asked_for_wrongly_is_said(tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {}, blobs=True)
    for arguments, expected in (
        ((), "Missing argument"),
        (("tiny",), "names no registry"),
        (("localhost:1/A:1",), "names no repository"),
        (("localhost:1/a:1", "--flake", tmp_path), "neither a flake nor an OCI layout"),
        (("localhost:1/a@sha256:" + "0" * 64,), "the image has the digest sha256:"),
        (("user:word@localhost/a:1",), "use `docker login`"),
    ):
        done = aikit_nix("push", "--flake", full, *arguments, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


# --- Blobs of any kind


def bring(fake: FakeRegistry, *blobs: Blob) -> int:
    """How many of some blobs were sent."""
    content = push.Content(layout.MANIFEST, b"{}", blobs)
    return push.push([content], reference.parse(f"{fake.address}/a/x:1"), push.Sending(chunk=MIB, jobs=2)).uploaded


def test_the_same_bytes_under_two_names_are_sent_once(fake: FakeRegistry) -> None:
    assert bring(fake, *(Blob.of(b"here", name) for name in ("one", "two"))) == 1
    assert fake.count("POST") == 1


def test_what_is_nowhere_is_named_before_anything_is_sent(fake: FakeRegistry) -> None:
    here, absent = Blob.of(b"here", "the text"), Blob("sha256:" + "0" * 64, 1, "the model", None)
    with pytest.raises(AikitError, match=r"^error: the model is neither in .*/a/x nor on this machine"):
        bring(fake, here, absent)
    assert (fake.blobs, fake.manifests, fake.count("POST")) == ({}, {}, 0)
    fake.blobs["a/x", absent.digest] = b"x"
    assert bring(fake, here, absent) == 1
    assert fake.blobs["a/x", here.digest] == b"here"
