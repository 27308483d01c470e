"""Models of Hugging Face that only some may read, and the token that opens them: where it goes, and where it never does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aikit_nix.sources import huggingface
from support import flakes, tiny_gguf
from support.file_server import FileServer
from support.hugging_face import SIGNATURE, TOKEN, HuggingFace
from support.locks import digest, done, in_store, only_file, refused, run, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


@pytest.mark.parametrize("how", ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"])
def test_a_gated_model_with_the_users_token(tmp_path: Path, hub: HuggingFace, model: bytes, how: str) -> None:
    """The token goes to Hugging Face alone, is written nowhere, and stands on no command line."""
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["private"] is True
    assert only_file(tmp_path)["sha256"] == digest(model)
    said = refused(tmp_path, "fetch")
    assert "accept the model's terms on https://huggingface.co/ns/gated, and set HF_TOKEN" in said

    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN + "\n")
    env = {"HF_TOKEN": TOKEN} if how == "HF_TOKEN" else {how: str(home / "token" if how == "HF_TOKEN_PATH" else home)}
    (tmp_path / "bin").mkdir()
    for name in ("nix", "nix-store"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\nexec {shutil.which(name)} "$@"\n')
        program.chmod(0o755)
    env["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    said = done(tmp_path, "--verbose", "lock", "--update", env=env)
    said += done(tmp_path, "--verbose", "fetch", env=env)
    assert in_store("m.gguf", model)
    assert only_file(tmp_path)["gguf"] == tiny_gguf.FACTS
    assert any(request.headers.get("authorization") == f"Bearer {TOKEN}" for request in hub.requests)
    assert not [request for request in hub.cdn_requests if "authorization" in request.headers]
    assert TOKEN not in said
    assert SIGNATURE not in said
    assert "m.gguf" in (tmp_path / "calls").read_text()
    home_files = {home / "token"}
    for file in tmp_path.rglob("*"):
        if file.is_file() and file not in home_files:
            assert TOKEN.encode() not in file.read_bytes(), file
            assert SIGNATURE.encode() not in file.read_bytes(), file


def test_a_token_that_cannot_be_read(tmp_path: Path, hub: HuggingFace) -> None:
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    for place in (tmp_path / "token", tmp_path):
        said = refused(tmp_path, "lock", env={"HF_TOKEN_PATH": str(place)})
        assert "the token for Hugging Face cannot be read" in said


def test_a_lock_cannot_send_the_token_elsewhere(
    tmp_path: Path, files: FileServer, hub: HuggingFace, model: bytes
) -> None:
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    files.files["/m.gguf"] = model
    text = (tmp_path / "aikit.lock").read_text()
    for url in (
        f"{files.url}/m.gguf",
        "https://huggingface.co.evil.invalid/m.gguf",
        "https://huggingface.co@evil.invalid/m",
    ):
        (tmp_path / "aikit.lock").write_text(text.replace(only_file(tmp_path)["url"], url))
        result = run(tmp_path, "--verbose", "fetch", env={"HF_TOKEN": TOKEN, "HF_ENDPOINT": ""})
        assert "aikit.lock is no aikit.lock" in result.stderr
        (tmp_path / "aikit.lock").write_text(text)
    assert not files.requests
    assert huggingface.request("https://huggingface.co.evil.invalid/m.gguf") == (
        "https://huggingface.co.evil.invalid/m.gguf",
        {},
    )


def test_a_gated_model_whose_terms_are_not_accepted(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository("ns/gated", gated=True, terms=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock", env={"HF_TOKEN": TOKEN})
    assert "accept the model's terms" in refused(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})


def test_a_private_repository(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository("ns/private", private=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/private/m.gguf"))
    done(tmp_path, "lock", env={"HF_TOKEN": TOKEN})
    assert only_file(tmp_path)["private"] is True
    done(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})
    assert in_store("m.gguf", model)
    wrong = {"HF_TOKEN": "hf_thisOneIsWrong0123456789abcdefgh"}
    said = refused(tmp_path, "lock", "--update", env=wrong)
    assert "HF_TOKEN" in said
    assert wrong["HF_TOKEN"] not in said


def test_nix_build_of_a_gated_model_says_what_brings_it(
    tmp_path: Path,
    hub: HuggingFace,
    model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flakes.environment(tmp_path_factory.mktemp("lock"), monkeypatch)
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian")
    plan = json.loads((tmp_path / "flake/aikit/plan.json").read_text())
    assert plan["models"][0]["url"] is None
    build = ["nix", "build", f"path:{tmp_path}/flake#models", "--no-link"]
    failed = subprocess.run(build, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "Run `aikit-nix fetch` beside the aikitfile" in failed.stderr
    done(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})
    assert in_store("m.gguf", model)
    subprocess.run(build, check=True)
