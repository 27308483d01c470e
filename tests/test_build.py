"""`aikit-nix build`: lock, downloads, flake and image in one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from aikit_nix.nix import store
from support import debian_lock, image
from support.command import aikit_nix
from support.file_server import FileServer


@pytest.mark.usefixtures("nix")
def test_from_an_aikitfile_to_an_image(
    tiny_model: Path, tmp_path: Path, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if lock := debian_lock.usable(tmp_path, print):
        monkeypatch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
    files.files["/model.gguf"] = tiny_model.read_bytes()[:-8] + os.urandom(8)
    source = f"{files.url}/model.gguf"
    aikitfile = f"apiVersion: v1alpha1\nruntime: avx\nmodels: [{{name: m, source: '{source}'}}]\n"
    (tmp_path / "aikitfile.yaml").write_text(aikitfile)

    build = ("build", "--packages", "debian", "--flake", "flake")
    done = aikit_nix(*build, cwd=tmp_path)
    assert done.returncode == 1
    assert "pin it with `aikit-nix lock`" in done.stderr
    assert not (tmp_path / "flake").exists()

    assert aikit_nix("lock", cwd=tmp_path).returncode == 0
    done = aikit_nix(*build, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    read = image.unpack((tmp_path / "result").resolve(), tmp_path / "root")
    assert (tmp_path / "root/models/model.gguf").read_bytes() == files.files["/model.gguf"]
    assert "-m-oci.drv'" in done.stderr  # Nix's own words
    assert "next: aikit-nix run, or aikit-nix push" in done.stdout
    done = aikit_nix(*build, "--", "--no-such-option", cwd=tmp_path)
    assert (done.returncode, "unrecognised flag '--no-such-option'" in done.stderr) == (1, True)
    done = aikit_nix(*build, "--", "--profile", "profile", cwd=tmp_path)  # counts from here
    assert (done.returncode, (tmp_path / "profile").exists()) == (0, True), done.stderr
    assert "cost:" not in done.stdout  # all is here

    seen = files.count("/model.gguf")
    done = aikit_nix(*build, "--package", "manifest", "--out-link", "manifest", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files.count("/model.gguf") == seen
    (entry,) = json.loads((tmp_path / "manifest/index.json").read_bytes())["manifests"]
    assert read.digest in (tmp_path / "manifest/blobs" / entry["digest"].replace(":", "/")).read_text()
    sha256 = json.loads((tmp_path / "aikit.lock").read_text())["models"][0]["files"][0]["sha256"]
    assert store.store_path("model.gguf", sha256).exists()


@pytest.mark.usefixtures("nix")
def test_nothing_is_downloaded_for_what_cannot_be_built(tmp_path: Path, files: FileServer) -> None:
    files.files["/model.gguf"] = content = os.urandom(1000)
    pinned = f"source: '{files.url}/model.gguf', sha256: {hashlib.sha256(content).hexdigest()}"
    (tmp_path / "aikitfile.yaml").write_text(f"apiVersion: v1alpha1\nmodels: [{{name: m, {pinned}}}]\n")
    done = aikit_nix("build", "--packages", "debian", "--engine", "localai", cwd=tmp_path)
    assert (done.returncode, "Debian has no LocalAI" in done.stderr) == (1, True)
    assert files.count("/model.gguf") == 0
