"""`aikit-nix build`: lock, downloads, flake and image in one; and Nix's own log, as people see it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aikit_nix import debian, store
from aikit_nix.nix_log import Log
from support import debian_lock, image
from support.command import aikit_nix
from support.file_server import FileServer


def event(**values: object) -> str:
    return "@nix " + json.dumps(values)


@pytest.mark.usefixtures("nix")
def test_from_an_aikitfile_to_an_image(tmp_path: Path, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in debian.build_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if lock := debian_lock.usable(tmp_path, print):
        monkeypatch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
    files.files["/model.gguf"] = b"GGUF" + os.urandom(5000)
    source = f"{files.url}/model.gguf"
    aikitfile = f"apiVersion: v1alpha1\nruntime: avx\nmodels: [{{name: m, source: '{source}'}}]\n"
    (tmp_path / "aikitfile.yaml").write_text(aikitfile)

    build = ("build", "--packages", "debian", "-o", "flake")
    done = aikit_nix(*build, cwd=tmp_path)
    assert done.returncode == 1
    assert "pin it with `aikit-nix lock`" in done.stderr
    assert not (tmp_path / "flake").exists()

    assert aikit_nix("lock", cwd=tmp_path).returncode == 0
    done = aikit_nix(*build, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    read = image.unpack((tmp_path / "result").resolve(), tmp_path / "root")
    assert (tmp_path / "root/models/model.gguf").read_bytes() == files.files["/model.gguf"]
    assert "building m-manifest" in done.stderr

    seen = files.count("/model.gguf")
    done = aikit_nix(*build, "--package", "manifest", "--out-link", "manifest", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files.count("/model.gguf") == seen
    (entry,) = json.loads((tmp_path / "manifest/index.json").read_bytes())["manifests"]
    assert read.digest in (tmp_path / "manifest/blobs" / entry["digest"].replace(":", "/")).read_text()
    sha256 = json.loads((tmp_path / "aikit.lock").read_text())["models"][0]["files"][0]["sha256"]
    assert store.store_path("model.gguf", sha256).exists()


def test_the_log_says_what_is_built_and_how_long_it_took() -> None:
    log = Log()
    drv = "/nix/store/00000000000000000000000000000000-llama-cpp-1.2.drv"
    start = event(action="start", id=1, type=105, text=f"building '{drv}'", fields=[drv, "", 1, 1])
    assert list(log.take(start, 0)) == ["building llama-cpp-1.2"]
    assert log.status() == "0 done; llama-cpp-1.2"
    list(log.take(event(action="start", id=2, type=101, text="downloading", fields=["https://x/y"]), 0))
    assert list(log.take(event(action="stop", id=2), 1)) == []
    assert list(log.take(event(action="stop", id=1), 61)) == ["llama-cpp-1.2: done in 61 s"]
    assert log.status() == "2 done"


def test_a_failure_comes_with_the_last_lines_of_its_build() -> None:
    log = Log()
    list(log.take(event(action="start", id=1, type=105, text="", fields=["/nix/store/x.drv"]), 0))
    for number in range(50):
        list(log.take(event(action="result", id=1, type=101, fields=[f"line {number}"]), 0))
    list(log.take(event(action="stop", id=1), 1))
    list(log.take(event(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m builder failed"), 1))
    assert log.wrong().splitlines()[-3:] == ["line 48", "line 49", "error: builder failed"]
    list(log.take(event(action="msg", level=0, msg="error: last 10 log lines:\n> line 49"), 1))
    assert log.wrong().splitlines()[0] == "error: builder failed"


@pytest.mark.parametrize(
    "line", ["@nix", "@nix {", "@nix []", '@nix {"action": "start"}', '@nix {"action": "result", "id": 1}', "@nix 1"]
)
def test_a_log_of_another_kind_does_no_harm(line: str) -> None:
    log = Log()
    assert list(log.take(line, 0)) == []
    assert log.status() == "0 done"
