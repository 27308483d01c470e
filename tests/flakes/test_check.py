"""`aikit-nix check` as a user runs it. What the findings are is tested with the module that finds it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"


def write(folder: Path, text: str, name: str = "aikitfile.yaml") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(tiny_model.read_bytes())
    return tmp_path


def test_a_good_file_says_so(folder: Path) -> None:
    write(folder, HEAD + MODEL)
    done = aikit_nix("check", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "aikitfile.yaml: no mistakes found\n", "")


def test_all_errors_of_all_files_at_once(folder: Path) -> None:
    write(
        folder,
        "apiVersion: v2\nruntime: avx3\nbackends: [exlama2]\nmodels:\n  - name: ../m\n    source: ftp://h/x\n",
        "a",
    )
    write(folder, HEAD + "debug: 'true'\n" + MODEL, "b")
    done = aikit_nix("check", "a", "b", cwd=folder)
    assert done.returncode == 1
    places = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert places == ["a:1:13", "a:2:10", "a:3:12", "a:5:11", "a:6:13", "b:2:8"]
    assert done.stdout == "2 files: 6 errors\n"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (HEAD + MODEL + "runtime: CUDA\n", "5:10", "did you mean `cuda`?"),
        (HEAD + MODEL + "config: |\n  - name: m\n    backend: lama-cpp\n", "7:14", "did you mean `llama-cpp`?"),
        (HEAD + MODEL + "config: |\n  - name: m\n   x: 1\n", "7:4", "cannot read this config"),
        (HEAD + MODEL + "backends: [exllama2]\n", "5:12", "use a GGUF of the model"),
        (HEAD + MODEL + "config: |\n  - name: m\n    context_size: 999999\n    parameters: {model: m.gguf}\n", "7:19", "4096 tokens"),
        (HEAD + MODEL.replace("m.gguf", "n.gguf"), "4:13", "source 'n.gguf' does not exist"),
        (HEAD + MODEL.replace("m.gguf", "bad.gguf"), "4:13", "bad.gguf is no GGUF: it is an HTML page"),
        (HEAD + MODEL.replace("m.gguf", "aikitfile.yaml/x"), "4:13", "cannot be read: not a directory"),
        (HEAD + MODEL.replace("m.gguf", "https://h.example/m.gguf"), "4:13", "pin it with `aikit-nix lock`"),
        ("a: @b\n", "1:4", "special character"),
        ("[" * 100_000, None, "levels of nesting"),
    ],
)  # fmt: skip
def test_what_is_found_and_where(folder: Path, text: str, place: str | None, says: str) -> None:
    (folder / "bad.gguf").write_bytes(b"<html>")
    write(folder, text)
    done = aikit_nix("check", cwd=folder)
    assert "Traceback" not in done.stderr
    found = [line for line in done.stderr.splitlines() if says in line]
    assert len(found) == 1, done.stderr
    assert f" aikitfile.yaml:{place}: " in found[0] or place is None


SECOND = "config: |\n  - name: a\n    parameters: {model: m.gguf}\n  - name: b\n    parameters: {model: m.gguf}\n"


@pytest.mark.parametrize(
    ("more", "options", "place"),
    [
        ("    context_size: [1, 2]\n", [], "10:19"),
        ("    context_size: [1, 2]\n", ["--packages", "debian"], "10:19"),
        ("    threads: 0x" + "f" * 5000 + "\n", [], "10:14"),
        ("    chat_template_kwargs: {a: .nan}\n", ["--engine", "llama-server"], "10:27"),
        ("    mmproj: n.gguf\n", ["--packages", "debian"], "10:13"),
        ("  - name: b\n    parameters: {model: m.gguf}\n", ["--packages", "debian"], "10:5"),
        ('  - name: "x\\0y"\n', [], "10:11"),
        ("  - {\n", [], "11:1"),
    ],
)
def test_check_and_gen_refuse_the_same_at_the_same_place(
    folder: Path, more: str, options: list[str], place: str
) -> None:
    write(folder, HEAD + MODEL + SECOND + more)
    checked = aikit_nix("check", *options, cwd=folder)
    generated = aikit_nix("gen", "--flake", "flake", *options, cwd=folder)
    for done in (checked, generated):
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert f"error: aikitfile.yaml:{place}: " in done.stderr
    assert not (folder / "flake").exists()


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\nb"])
def test_a_file_that_cannot_be_read(folder: Path, name: str) -> None:
    done = aikit_nix("check", name, cwd=folder)
    assert done.returncode == (2 if name == "." else 1)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_warnings_fail_only_when_asked(folder: Path) -> None:
    write(folder, HEAD + MODEL + "colour: red\n")
    assert aikit_nix("check", cwd=folder).returncode == 0
    assert aikit_nix("check", "--strict", cwd=folder).returncode == 1


def test_programs_read_all_of_it_from_stdout(folder: Path) -> None:
    write(folder, HEAD + MODEL + "colour: red\nruntime: avx9\n")
    done = aikit_nix("check", "none.yaml", "aikitfile.yaml", "--format", "json", cwd=folder)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["errors"], report["warnings"]) == (1, "", 2, 1)
    done = aikit_nix("check", "none.yaml", "aikitfile.yaml", "--format", "sarif", cwd=folder)
    results = json.loads(done.stdout)["runs"][0]["results"]
    assert (done.returncode, done.stderr) == (1, "")
    assert [result["ruleId"] for result in results] == ["unreadable", "unknown-key", "runtime"]


def on_a_terminal(folder: Path, **env: str) -> str:
    """What check writes to stderr when that is a terminal."""
    leader, follower = pty.openpty()
    argv = [sys.executable, "-m", "aikit_nix.cli", "check"]
    environment = {**{name: value for name, value in os.environ.items() if name != "NO_COLOR"}, "TERM": "xterm", **env}
    subprocess.run(argv, cwd=folder, stderr=follower, stdout=subprocess.DEVNULL, env=environment, check=False)
    os.close(follower)
    try:
        return os.read(leader, 65536).decode()
    finally:
        os.close(leader)


def test_colour_on_a_terminal_only_and_not_with_no_color(folder: Path) -> None:
    write(folder, HEAD + MODEL + "runtime: avx9\n")
    assert "\x1b[31m\x1b[1merror" in on_a_terminal(folder)
    assert "\x1b" not in on_a_terminal(folder, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(folder, TERM="dumb")
    assert "\x1b" not in aikit_nix("check", cwd=folder).stderr
