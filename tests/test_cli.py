"""The command line: how a command is found, how much is said, how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from aikit_nix import __version__
from aikit_nix.cli import _GROUPS, cli
from support import tiny_gguf
from support.command import aikit_nix
from support.flakes import PINNED

AIKITFILE = "apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n"


@pytest.fixture(autouse=True)
def aikitfile(tmp_path: Path) -> None:
    (tmp_path / "aikitfile.yaml").write_text(AIKITFILE)


def test_the_package_is_a_program_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "aikit_nix", "--version"]
    said = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"aikit-nix {__version__} (LocalAI v")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["chek"], "No such command 'chek'"),
        (["chek"], "No such command 'chek'; did you mean `check`?"),
        (["check", "--formt", "json"], "No such option '--formt'"),
        (["push"], "Missing argument 'REF...'"),
        (["gen", "--packages", "arch"], "'arch' is not one of"),
        (["lock", "--models"], "--models is part of --check"),
        (["verify", "result", "--evidence", "file"], "--evidence is for a --policy"),
        (["verify", "result", "--key", "cosign.key"], "--key signs what is written"),
        (["verify", "result", "--output", "file", "--log"], "--log is about a signature"),
        (["reproduce", "--key", "cosign.key"], "--key signs what is written"),
        (["reproduce", "--log"], "--log is about a signature"),
        (["sign", "--key", "cosign.key", "--models", "model.sig", "--unseen"], "--models signs digests of files"),
        (["k8s", "--all-systems", "--system", "x86_64-linux"], "of one system, or of --all-systems"),
        (["k8s", "--server", ""], "--server names no image"),
    ],
)
def test_a_wrong_command_line_is_another_error_than_a_wrong_file(tmp_path: Path, args: list[str], says: str) -> None:
    done = aikit_nix(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert says in done.stderr


def test_the_help_has_every_command_in_a_group_with_an_example_that_is_one(tmp_path: Path) -> None:
    done = aikit_nix("help", cwd=tmp_path)
    assert done.stdout == aikit_nix("--help", cwd=tmp_path).stdout
    assert [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith("Usage")] == [
        "Options:",
        *(f"{group}:" for group in _GROUPS),
    ]
    root = click.Context(cli, info_name="aikit-nix")
    for group in _GROUPS.values():
        for name, (_, example) in group.items():
            assert f"\n  {name} " in done.stdout
            command = cli.get_command(root, name)
            assert command
            first, *words = shlex.split(example)
            assert first == name
            assert f"Example: aikit-nix {example}\n" in command.make_context(name, words, parent=root).get_help() + "\n"
    assert "Example: aikit-nix fetch\n" in aikit_nix("help", "fetch", cwd=tmp_path).stdout
    assert aikit_nix("version", cwd=tmp_path).stdout == aikit_nix("--version", cwd=tmp_path).stdout
    done = aikit_nix("help", "chek", cwd=tmp_path)
    assert (done.returncode, "did you mean `check`?" in done.stderr) == (2, True)


def test_how_much_is_said_may_be_asked_before_and_behind_the_command(tmp_path: Path) -> None:
    tiny_gguf.make(tmp_path / "m.gguf")
    gen = ["gen", "--packages", "debian"]
    for words in (["-v", *gen], [*gen, "-v"]):
        assert "$ nix --version\n" in aikit_nix(*words, cwd=tmp_path).stderr
    assert "$" not in aikit_nix(*gen, cwd=tmp_path).stderr
    for words in (["-q", "init"], ["init", "-q"]):
        done = aikit_nix(*words, "--model", "m.gguf", "-o", f"{words[0]}.yaml", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_list_of_commands_is_not_cut(tmp_path: Path) -> None:
    listed = aikit_nix("--help", cwd=tmp_path, env={**os.environ, "COLUMNS": "80"}).stdout
    assert "sign" in listed
    assert "debian-lock" in listed.partition("Start:")[2]
    assert "..." not in listed.partition("Start:")[2]


def test_a_full_disk_below_TMPDIR_is_not_taken_for_standard_output(tmp_path: Path) -> None:  # noqa: N802 (its name)
    (tmp_path / "aikitfile.yaml").write_bytes(PINNED)
    assert aikit_nix("gen", "--packages", "debian", "--elsewhere", cwd=tmp_path).returncode == 0
    (tmp_path / "tmp").mkdir()
    limited = ["prlimit", "--fsize=100", sys.executable, "-m", "aikit_nix.cli", "inspect"]
    env = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(limited, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: cannot write {tmp_path}/tmp/\S+: file too large\n", done.stderr)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "args", [["schema"], ["--help"], ["check", "--format", "json"], ["check", "--format", "sarif"], ["explain"], ["--version"]]
)  # fmt: skip
def test_a_full_disk_behind_stdout_is_one_error(tmp_path: Path, args: list[str]) -> None:
    argv = [sys.executable, "-m", "aikit_nix.cli", *args]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot write to standard output: no space left on device\n")


def test_a_reader_that_has_gone_or_a_closed_stream_is_no_error(tmp_path: Path) -> None:
    argv = f"{sys.executable} -m aikit_nix.cli schema"
    gone = subprocess.run(["bash", "-c", f"{argv} | true"], cwd=tmp_path, capture_output=True, text=True, check=True)
    closed = subprocess.run(["bash", "-c", f"{argv} >&-"], cwd=tmp_path, capture_output=True, text=True, check=True)
    deaf = subprocess.run(["bash", "-c", f"{argv} x 2>/dev/full"], capture_output=True, text=True, check=False)
    assert (gone.stderr, closed.stderr, deaf.returncode) == ("", "", 2)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_its_end(process: int) -> None:
    """It was killed, which takes the kernel a moment."""
    deadline = time.monotonic() + 30
    while lives(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def waiting(folder: Path, before: signal.Handlers) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `gen` that waits for a program, and that program; hung up, it does as `before` says."""
    pinned = f"apiVersion: v1alpha1\nmodels: [{{name: m, source: https://h.example/m, sha256: '{'1' * 64}'}}]\n"
    (folder / "aikitfile.yaml").write_text(pinned)
    os.mkfifo(folder / "started")
    nix = "#!/bin/sh\nsleep 1 # until who started it waits for it\necho $$ > started\nexec sleep 1000\n"
    (folder / "nix").write_text(nix)
    (folder / "nix").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "aikit_nix.cli", "gen", "--packages", "debian", "--flake", "out"]
    ours = signal.signal(signal.SIGHUP, before)  # who runs this may have it ignored
    try:
        process = subprocess.Popen(argv, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, ours)
    with process:
        child = int((folder / "started").read_text())
        try:
            yield process, child
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_who_is_told_to_end_ends_what_it_started(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with waiting(tmp_path, signal.SIG_DFL) as (process, child):
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in said) == (status, False), said
    wait_for_its_end(child)


def test_nohup_is_kept_to(tmp_path: Path) -> None:
    with waiting(tmp_path, signal.SIG_IGN) as (process, child):
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    wait_for_its_end(child)


def test_a_current_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "pinned.yaml").write_bytes(PINNED)
    gen = f'"{sys.executable}" -m aikit_nix gen --packages debian --elsewhere "{tmp_path}/pinned.yaml"'
    argv = ["bash", "-c", f"mkdir gone && cd gone && rmdir ../gone && {gen}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the current folder is not there any more: go into another one"
