"""`lock` and `fetch` from a server into the Nix store. Killed at any moment: test_kills.py."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from aikit_nix.nix import store
from support.command import aikit_nix
from support.file_server import FileServer
from support.hugging_face import HuggingFace
from support.locks import digest, done, in_store, only_file, refused, write


def written(folder: Path, server: FileServer, sha256: str = "") -> None:
    known = f", sha256: {sha256}" if sha256 else ""
    (folder / "aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: '{server.url}/m.gguf'{known}}}\n"
    )


@pytest.mark.usefixtures("nix")
def test_a_wrong_byte_reaches_no_store(files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = random.Random(str(tmp_path)).randbytes(5 << 20)
    files.files["/m.gguf"] = data[:-1] + bytes([data[-1] ^ 1])
    written(tmp_path, files, hashlib.sha256(data).hexdigest())
    done = aikit_nix("fetch", cwd=tmp_path)
    assert done.returncode == 1
    assert f"m.gguf: {files.url}/m.gguf has the sha256" in done.stderr
    for content in (data, files.files["/m.gguf"]):
        assert not store.store_path("m.gguf", hashlib.sha256(content).hexdigest()).exists()
    assert list((tmp_path / "cache/aikit-nix/downloads").iterdir()) == []


@pytest.mark.usefixtures("nix")
def test_fetch_brings_it_and_completes_the_lock(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    assert "1 of them new" in done(tmp_path, "fetch")
    assert in_store("m.gguf", model)
    file = only_file(tmp_path)
    assert len(file["blake3"]) == 64
    assert file["layer"]["digest"].startswith("sha256:")
    assert "0 of them new" in done(tmp_path, "fetch")
    assert "up to date" in done(tmp_path, "lock", "--update")


@pytest.mark.usefixtures("nix")
def test_fetch_completes_the_lock_from_the_store(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    (tmp_path / "there.gguf").write_bytes(model)
    done(tmp_path, "lock")
    store.add(tmp_path / "there.gguf", "m.gguf", digest(model))
    said = done(tmp_path, "fetch")
    assert "0 of them new" in said
    assert "what the bytes say" in said
    assert only_file(tmp_path)["layer"]


@pytest.mark.usefixtures("nix")
def test_what_is_no_model_is_refused_at_every_door(
    tmp_path: Path, files: FileServer, hub: HuggingFace, model: bytes
) -> None:
    """By its first bytes where the hash is known, by the whole where it is not; registries: tests/sources/test_oci_artifacts.py."""
    page = b"<!DOCTYPE html><title>Sign in</title>" + os.urandom(600)
    half = model[: len(model) // 2] + os.urandom(16)
    hub.repository().commit({"page.gguf": page, "half.gguf": half})
    files.files |= {"/page.gguf": page, "/half.gguf": half}
    for name, content, said in (("page", page, "it is an HTML page"), ("half", half, "is cut off")):
        known = f"{files.url}/{name}.gguf', sha256: '{digest(content)}"
        for source in (f"huggingface://ns/repo/{name}.gguf", f"{files.url}/{name}.gguf", known):
            (tmp_path / "aikitfile.yaml").write_text(
                f"apiVersion: v1alpha1\nmodels: [{{name: m, source: '{source}'}}]\n"
            )
            refused = aikit_nix("lock", cwd=tmp_path)
            assert (source, refused.returncode) == (source, 1)
            assert said in refused.stderr
            assert not (tmp_path / "aikit.lock").exists()
        (tmp_path / "aikitfile.yaml").write_text(f"apiVersion: v1alpha1\nmodels: [{{name: m, source: '{known}'}}]\n")
        assert said in aikit_nix("fetch", cwd=tmp_path).stderr
        done(tmp_path, "lock", "--as-is", "m")
        done(tmp_path, "fetch")
        done(tmp_path, "check")
        (tmp_path / "aikit.lock").unlink()


@pytest.mark.usefixtures("nix")
def test_every_file_that_is_no_model_is_named(tmp_path: Path, hub: HuggingFace) -> None:
    pages = {f"{name}.gguf": b"<!DOCTYPE html><title>Sign in</title>" + os.urandom(600) for name in "ab"}
    hub.repository().commit(pages)
    write(tmp_path, *((name, f"huggingface://ns/repo/{name}.gguf") for name in "ab"))
    said = refused(tmp_path, "lock")
    assert [f"`{name}`: {name}.gguf is no" in said for name in "ab"] == [True, True], said
