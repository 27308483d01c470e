"""`aikit-nix explain` as a user runs it: what becomes of each part, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import tiny_gguf
from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"


def write(folder: Path, text: str) -> None:
    (folder / "aikitfile.yaml").write_text(text)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(tiny_model.read_bytes())
    return tmp_path


def test_explain(folder: Path) -> None:
    write(
        folder,
        HEAD + MODEL + 'config: |\n  - name: chat\n    parameters: {model: m.gguf}\n    system_prompt: \\"hi\\"\n',
    )
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert done.returncode == 0, done.stderr
    for part in ("/models/m.gguf, a layer of its own", "llama, 4096 tokens", "serves  chat from /models/m.gguf"):
        assert part in done.stdout
    assert '  |   system_prompt: "hi"' in done.stdout
    assert "escapes undone: 2 backslashes fewer than written" in done.stdout
    assert "on x86_64-linux (others: cpu, avx2, avx512, cuda, vulkan, rocm)\n" in done.stdout
    assert "on aarch64-linux (others: cuda, vulkan)\n" in done.stdout
    assert "  serves  1 request at once, of 4096 tokens with the answer; others wait\n" in done.stdout


def test_a_model_may_have_the_name_of_an_option(folder: Path) -> None:
    tiny_gguf.make(folder / "a.gguf", context=2048)
    config = "config: |\n  - {name: --parallel, parameters: {model: a.gguf}}\n"
    write(folder, HEAD + "models: [{name: m, source: a.gguf}]\n" + config)
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert "  serves  1 request at once, of 2048 tokens" in done.stdout, done.stderr


def test_explain_knows_a_folder_that_no_lock_has(folder: Path) -> None:
    """`gen` takes it; the sizes of the files are enough to say what memory they take."""
    (folder / "many").mkdir()
    tiny_gguf.make(folder / "many" / "a.gguf", context=2048)
    config = "config: |\n  - {name: a, parameters: {model: many/a.gguf}}\n"
    write(folder, HEAD + "models: [{name: m, source: many/}]\n" + config)
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  memory  " in done.stdout
    assert "  serves  1 request at once, of 2048 tokens with the answer; others wait\n" in done.stdout
    done = aikit_nix("check", "--packages", "debian", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_explain_says_what_is_not_in_debian_proper(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: cuda\n")
    done = aikit_nix("explain", "--packages", "debian", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("contrib: libggml0-backend-cuda\n") == 2
    assert done.stdout.count("non-free: libcublas12, libcublaslt12, libcudart12\n") == 2
    done = aikit_nix("explain", "--packages", "debian", "--runtime", "vulkan", cwd=folder)
    assert "for x86_64-linux, " in done.stdout
    assert "non-free" not in done.stdout


def test_explain_refuses_what_gen_refuses(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: rocm\n")
    done = aikit_nix("explain", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("error: aikitfile.yaml:5:10: ")


def test_explain_does_without_what_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"<html>")
    models = "models:\n- {name: w, source: https://h.example/w.gguf}\n- {name: l, source: l.gguf}\n- {name: b, source: bad.gguf}\n"
    write(tmp_path, HEAD + models)
    done = aikit_nix("explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    web, local, bad = done.stdout.split("\nmodel ")[1:]
    assert "not known: pin it with `aikit-nix lock`" in web
    assert "computed by gen" in local
    assert "gguf    cannot be read: source 'l.gguf' does not exist" in local
    assert "gguf    cannot be read: it does not begin with the letters GGUF" in bad
    assert "config    none: the server finds the model files by itself" in bad


def test_explain_shows_what_the_lock_knows_of_the_origin(tmp_path: Path) -> None:
    (tmp_path / "aikit.lock").write_text(
        """{"version": 1, "models": [{"name": "m", "source": "hf://ns/repo/m.gguf",
        "origin": {"kind": "huggingface", "repository": "ns/repo", "revision": "0123456789012345678901234567890123456789", "license": "mit", "baseModels": ["ns/base"]},
        "files": [{"path": "/models/m.gguf", "size": 5,
                   "url": "https://huggingface.co/ns/repo/resolve/0123456789012345678901234567890123456789/m.gguf",
                   "sha256": "1111111111111111111111111111111111111111111111111111111111111111",
                   "gguf": {"chatTemplate": true, "contextLength": 4096,
                            "memory": {"keys": 1024, "values": 1024, "buffers": 7168, "tokens": 32000}}}]}]}"""
    )
    write(tmp_path, HEAD + "models: [{name: m, source: 'hf://ns/repo/m.gguf'}]\n")
    done = aikit_nix("explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in (
        "size    5 bytes",
        "at      https://huggingface.co/ns/repo/resolve/0123456789012345678901234567890123456789/m.gguf",
        "origin  ns/repo at 0123456789012345678901234567890123456789",
        "licence mit, as its origin says",
        "made of ns/base, as its origin says",
        "gguf    4096 tokens, a chat template",
    ):
        assert f"  {line}\n" in done.stdout
    done = aikit_nix("explain", "--packages", "debian", cwd=tmp_path)
    assert "  memory  76.9 MB; 268.4 MB with the cache of prompts\n" in done.stdout
