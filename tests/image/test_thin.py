"""An image pushed by a machine that never had its model: the registry has it, and that is enough."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aikit_nix.image import find, layout
from aikit_nix.models import layer
from aikit_nix.nix import store
from support import container, image, layouts, pushes, registry, tiny_gguf
from support.command import aikit_nix
from support.image_fixtures import generate
from support.wire import tap

# Runs in an empty network namespace: a registry, and a push to it.
INSIDE = """
import os, subprocess, sys
from pathlib import Path
from aikit_nix.image import relay
from support import registry
relay.loopback_up()
folder, flake, name = sys.argv[1:]
server = registry.Registry(Path(folder))
server.start()
try:
    argv = [sys.executable, "-m", "aikit_nix.cli", "push", f"{server.address}/{name}", "--flake", flake]
    sys.exit(subprocess.run(argv).returncode)
finally:
    server.kill()
"""


def unseen_model(folder: Path, sentence: str) -> tuple[Path, dict[str, object]]:
    """A model whose bytes no Nix store has, and its entry in aikit.lock."""
    file = tiny_gguf.make(folder / "unseen.gguf", sentence)
    content = file.read_bytes()
    url = "https://models.invalid/unseen.gguf"
    described = {
        "path": "/models/unseen.gguf",
        "url": url,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "layer": layer.describe("/models/unseen.gguf", file),
    }
    lock = {"version": 1, "models": [{"name": "m", "source": url, "origin": {"kind": "http"}, "files": [described]}]}
    (folder / "aikit.lock").write_text(json.dumps(lock))
    (folder / "aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nruntime: avx\nmodels: [{{name: m, source: '{url}'}}]\n"
    )
    return file, described


@pytest.mark.usefixtures("tiny_flake", "bubblewrap")  # whose engine is built, so that no network is needed
def test_without_the_model_and_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := registry.missing():
        pytest.skip(reason)
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    sentence = f"This is the model {os.urandom(4).hex()}."
    file, described = unseen_model(tmp_path, sentence)
    in_store = store.store_path("unseen.gguf", str(described["sha256"]))
    flake = generate(tmp_path)
    folder = tmp_path / "registry"
    folder.mkdir()

    # Somebody else pushed another image with the model.
    with registry.serve(folder) as server:
        other = layouts.make(tmp_path / "other", {"/models/unseen.gguf": file.read_bytes()}, blobs=True)
        pushes.send(other, f"{server.address}/other/image:1")

    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    argv = ["unshare", *user, "--net", sys.executable, "-c", INSIDE, str(folder), str(flake), "mine/image:1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unseen.gguf: https://models.invalid/unseen.gguf cannot be reached" in done.stderr

    argv[-1] = "other/image:2"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not in_store.exists()
    pushed = done.stdout.strip().rpartition("@")[2]

    with registry.serve(folder) as server:
        source = f"docker://{server.address}/other/image:2"
        argv = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false", source]
        subprocess.run([*argv, f"oci:{tmp_path}/pulled:x"], check=True, capture_output=True)
    read = image.unpack(tmp_path / "pulled", tmp_path / "root")
    with container.start(read, tmp_path / "root") as running:
        assert running.chat("Hello") == sentence

    store.add(file, "unseen.gguf", str(described["sha256"]))
    full = find.build(str(flake), "oci")
    assert layout.read_layout(full).digest == pushed == layout.read_layout(tmp_path / "pulled").digest


@pytest.mark.usefixtures("nix")
def test_a_changed_line_costs_less_than_a_mebibyte(
    tiny_flake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a machine that remembers nothing of the first push; the image is the whole one."""
    if reason := registry.missing():
        pytest.skip(reason)
    shutil.copy(tiny_flake.parent / "tiny.gguf", tmp_path)
    aikitfile = (tiny_flake.parent / "aikitfile.yaml").read_text()
    with registry.serve(tmp_path) as server, tap(server.address) as wire:
        for number, config in enumerate(("", "config: '- {name: other, parameters: {model: tiny.gguf}}'\n")):
            (tmp_path / "aikitfile.yaml").write_text(aikitfile + config)
            flake = generate(tmp_path)
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{number}"))
            before = wire.total
            done = aikit_nix("push", f"{wire.address}/a/tiny:{number}", "--flake", flake, cwd=tmp_path, env=None)
            assert done.returncode == 0, done.stderr
            if number:
                assert wire.total - before < 100_000
            else:
                assert wire.sent > 30_000_000
