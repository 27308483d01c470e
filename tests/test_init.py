"""`aikit-nix init` as a user runs it, with a server on loopback in Hugging Face's place."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from aikit_nix.aikitfile import Aikitfile
from aikit_nix.pipeline import read
from support.command import aikit_nix
from support.file_server import Failure, FileServer

COMMIT = "5" * 40


@pytest.fixture
def model(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()


def init(folder: Path, *args: str | Path, hub: FileServer | None = None) -> CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": hub.url} if hub else None
    return aikit_nix("init", *args, cwd=folder, env=env)


def written(folder: Path) -> Aikitfile:
    project = read(folder / "aikitfile.yaml")
    assert not project.findings, [str(finding) for finding in project.findings]
    return project.aikitfile


def serve_repository(hub: FileServer, model: bytes, *paths: str) -> str:
    """Imitate Hugging Face's description of a repository, and serve the files; gives their SHA-256."""
    sha256 = hashlib.sha256(model).hexdigest()
    siblings: list[dict[str, object]] = [
        {
            "rfilename": path,
            "size": len(model),
            "blobId": "1" * 40,
            "lfs": {"sha256": sha256, "size": len(model), "pointerSize": 134},
        }
        for path in paths
    ]
    siblings.append({"rfilename": "README.md", "size": 1, "blobId": "2" * 40})
    answer = {"id": "ns/repo", "sha": COMMIT, "siblings": siblings, "gated": False, "private": False}
    hub.files["/api/models/ns/repo/revision/main"] = json.dumps(answer).encode()
    for path in paths:
        hub.files[f"/ns/repo/resolve/main/{path}"] = model
    return sha256


def test_a_local_file(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    done = init(tmp_path, "--model", "m.gguf", "--runtime", "avx2")
    assert done.returncode == 0, done.stderr
    parsed = written(tmp_path)
    assert (parsed.models[0].name.value, parsed.models[0].source.value.text) == ("tiny", "m.gguf")
    assert parsed.runtime is not None
    assert parsed.runtime.value == "avx2"
    assert parsed.config is not None
    assert "context_size: 4096" in parsed.config.value
    assert "use_tokenizer_template: true" in parsed.config.value
    checked = aikit_nix("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_it_asks_on_a_terminal(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    leader, follower = pty.openpty()
    os.write(leader, b"m.gguf\navx512\n")
    argv = [sys.executable, "-m", "aikit_nix.cli", "init"]
    done = subprocess.run(argv, cwd=tmp_path, stdin=follower, capture_output=True, text=True, check=False)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0, done.stderr
    parsed = written(tmp_path)
    assert parsed.runtime is not None
    assert parsed.runtime.value == "avx512"


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    (tmp_path / "aikitfile.yaml").write_text("mine")
    done = init(tmp_path, "--model", "m.gguf")
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert (tmp_path / "aikitfile.yaml").read_text() == "mine"
    assert init(tmp_path, "--model", "m.gguf", "--force").returncode == 0


def test_a_repository(tmp_path: Path, model: bytes, files: FileServer) -> None:
    sha256 = serve_repository(files, model, "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf")
    done = init(tmp_path, "--model", "ns/repo", hub=files)
    assert done.returncode == 0, done.stderr
    found = written(tmp_path).models[0]
    assert found.source.value.text == "https://huggingface.co/ns/repo/resolve/main/m-Q4_K_M.gguf"
    assert found.sha256 is not None
    assert found.sha256.value == sha256


def test_a_file_of_a_repository_by_pattern_and_by_url(tmp_path: Path, model: bytes, files: FileServer) -> None:
    serve_repository(files, model, "m-Q4_K_M.gguf", "m-Q8_0.gguf")
    for named in ("ns/repo:Q8_0", "https://huggingface.co/ns/repo/blob/main/m-Q8_0.gguf?download=true"):
        assert init(tmp_path, "--model", named, "--force", hub=files).returncode == 0
        assert written(tmp_path).models[0].source.value.text.endswith("ns/repo/resolve/main/m-Q8_0.gguf")


def test_all_parts_of_a_sharded_model(tmp_path: Path, model: bytes, files: FileServer) -> None:
    serve_repository(files, model, *(f"q4_k_m/m-q4_k_m-0000{n}-of-00003.gguf" for n in (1, 2, 3)))
    assert init(tmp_path, "--model", "ns/repo", hub=files).returncode == 0
    parsed = written(tmp_path)
    assert [model.path[-20:] for model in parsed.models] == [f"-0000{n}-of-00003.gguf"[-20:] for n in (1, 2, 3)]
    assert parsed.config is not None
    assert "model: m-q4_k_m-00001-of-00003.gguf" in parsed.config.value


def test_any_other_url_needs_its_sha256_or_one_download(tmp_path: Path, model: bytes, files: FileServer) -> None:
    files.files["/m.gguf"] = model
    url = f"{files.url}/m.gguf"
    done = init(tmp_path, "--model", url)
    assert done.returncode == 1
    assert "--sha256" in done.stderr
    assert "--download" in done.stderr
    assert init(tmp_path, "--model", url, "--download").returncode == 0
    found = written(tmp_path).models[0]
    assert found.sha256 is not None
    assert found.sha256.value == hashlib.sha256(model).hexdigest()
    assert init(tmp_path, "--model", url, "--sha256", "1" * 64, "--force").returncode == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--model", "nothing.gguf"], "is not there"),
        (["--model", "bad.gguf"], "does not begin with the letters GGUF"),
        (["--model", "cut.gguf"], "ends within its header"),
        (["--model", "../outside.gguf"], "outside"),
        (["--model", "ns/none"], "is not there"),
        (["--model", "ns/odd"], "gave no commit"),
        (["--model", "ns/gated"], "is not open to this user"),
        (["--model", "ns/repo"], "several match"),
        (["--model", "ns/repo:Q2"], "none matches"),
        (["--model", "oci://x/y"], "names no registry"),
        (["--model", "https://user:pw@h.example/m.gguf"], "user name"),
        (["--model", "http://127.0.0.1:1/m.gguf", "--sha256", "1" * 64], "cannot be read"),
        (["--model", "x.gguf", "--sha256", "zz"], "64 lower-case hex"),
        ([], "no model"),
    ],
)
def test_what_cannot_be_had(tmp_path: Path, model: bytes, files: FileServer, args: list[str], says: str) -> None:
    (tmp_path / "outside.gguf").write_bytes(model)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "bad.gguf").write_bytes(b"PK\3\4" + bytes(100))
    (folder / "cut.gguf").write_bytes(model[:100])
    serve_repository(files, model, "a-Q4_K_M.gguf", "b-Q4_K_M.gguf")
    files.files["/api/models/ns/odd/revision/main"] = b'{"id": "ns/odd"}'
    files.failures["/api/models/ns/gated/revision/main"] = [Failure(status=403)]
    done = init(folder, *args, hub=files)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "aikitfile.yaml").exists()


def test_only_the_head_of_a_large_file_is_read(tmp_path: Path, model: bytes, files: FileServer) -> None:
    serve_repository(files, model + bytes(1 << 20), "m-Q4_K_M.gguf")
    assert init(tmp_path, "--model", "ns/repo", hub=files).returncode == 0
    ranges = [request.headers.get("range") for request in files.requests if "/resolve/" in request.path]
    assert all(asked and asked.startswith("bytes=0-") for asked in ranges)
