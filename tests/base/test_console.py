"""What reaches the terminal, whatever is in it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aikit_nix.base import console
from aikit_nix.base.errors import Diagnostic, Position, Severity
from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models: [{name: m, source: m.gguf}]\n"
# Sets the title, sets the clipboard, the same with C1 bytes; and what fakes lines or turns the direction of writing.
EVIL = "\x1b]0;pwned\x07\x1b]52;c;cHduZWQ=\x07\x9b31m\x85\u2028\u202e\u2066\u200b\x7f\r\nerror: fake"
ESCAPED = re.sub(r"\\n.*", "", repr(EVIL)[1:-1])  # up to the line break


def test_diagnostics_are_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.report([Diagnostic(Severity.ERROR, "x", EVIL, Position(EVIL, 1, 1))])
    said = capsys.readouterr().err
    assert (said.count("\n"), said.count(ESCAPED), said[:-1].isprintable()) == (1, 2, True)


def test_lines_and_tabs_are_kept_between_and_within_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\tb", f"c{EVIL}")
    console.show(EVIL)
    console.say(EVIL, err=True)
    said = capsys.readouterr()
    assert said.out.split("\n")[0] == "a\tb"
    assert (said.out.count("\n"), said.out.count(ESCAPED)) == (3, 2)
    assert (said.err.count("\n"), said.err.count(ESCAPED)) == (1, 1)


def test_what_programs_read_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    console.write(EVIL)
    assert capsys.readouterr().out == EVIL


def yaml(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


def on_a_terminal(folder: Path, *args: str | Path) -> str:
    """What a command shows on a terminal, both streams, without colours."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "NO_COLOR": "1"}
    argv = [sys.executable, "-m", "aikit_nix.cli", *map(str, args)]
    with subprocess.Popen(argv, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            said += more
            if not more:
                break
        process.wait()
    os.close(ours)
    return said.decode(errors="surrogateescape").replace("\r\n", "\n")


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}{MODEL}{yaml(EVIL)}: 1\n",
        f"{HEAD}{MODEL}runtime: {yaml(EVIL)}\n",
        f"{HEAD}models: [{{name: {yaml(EVIL)}, source: m.gguf}}]\n",
        f"{HEAD}models: [{{name: m, source: {yaml(EVIL)}}}]\n",
        f"{HEAD}models: [{{name: m, source: {yaml('https://h.example/' + EVIL)}}}]\n",
        f"{HEAD}models: [{{name: m, source: 'https://h.example/%1b%5d0;pwned%07', sha256: '{'1' * 64}'}}]\n",
        f"{HEAD}models: [{{name: m, source: m.gguf, promptTemplates: [{{name: {yaml(EVIL)}, template: x}}]}}]\n",
        f"{HEAD}models: [{{name: m, source: m.gguf, promptTemplates: [{{name: x, template: {yaml('{{' + EVIL)}}}]}}]\n",
        f"{HEAD}{MODEL}config: {yaml(EVIL)}\n",
        f"{HEAD}{MODEL}config: |\n  - name: {yaml(EVIL)}\n    {yaml(EVIL)}: 1\n    backend: {yaml(EVIL)}\n",
        f"{HEAD}{MODEL}config: |\n  - name: x\n    parameters: {{model: {yaml(EVIL)}, {yaml(EVIL)}: 1}}\n",
        f"{HEAD}{MODEL}loadToMemory: [{yaml(EVIL)}]\n",
        f"!{'%1b' * 3} x\n",
        f"{HEAD}x: *{'é' * 3}\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "explain", "explain --engine llama-server", "gen", "fmt --diff"])
def test_nothing_of_a_file_steers_the_terminal(tmp_path: Path, text: str, command: str) -> None:
    (tmp_path / "aikitfile.yaml").write_text(text)
    said = on_a_terminal(tmp_path, *command.split())
    assert "Traceback" not in said
    assert [line for line in said.split("\n") if not line.replace("\t", "").isprintable()] == []
    assert not re.search("^error: fake", said, re.MULTILINE)


@pytest.mark.parametrize(
    "args",
    [
        ["check", EVIL],
        ["check", "aikitfile.yaml", EVIL + ".yaml"],
        ["explain", EVIL + ".yaml"],
        ["fmt", EVIL + ".yaml"],
        ["fmt", "--diff", EVIL + ".yaml"],
        ["gen", EVIL],
        ["gen", "--name", EVIL],
        ["gen", "--runtime", EVIL],
        ["gen", "--nixpkgs", EVIL],
        ["gen", "--debian-lock", EVIL],
        ["gen", "--" + EVIL],
        [EVIL],
        ["init", "--model", EVIL],
        ["init", "--model", "m.gguf", "-o", EVIL + "/a"],
        ["init", "--model", EVIL + ".gguf"],
    ],
)
def test_nothing_of_a_name_steers_the_terminal(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "aikitfile.yaml").write_text(HEAD + MODEL)
    (tmp_path / f"{EVIL}.yaml").write_text(f"{HEAD}models: [ {{name: m,   source: m.gguf}}]\nx: 1\n")
    (tmp_path / f"{EVIL}.gguf").write_bytes(b"GGUF")
    said = on_a_terminal(tmp_path, *args)
    assert "Traceback" not in said
    assert [line for line in said.split("\n") if not line.replace("\t", "").isprintable()] == []
    assert not re.search("^error: fake", said, re.MULTILINE)


def test_a_name_that_is_no_unicode_is_shown_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\x1b.yaml")
    (tmp_path / name).write_text(HEAD + MODEL)
    done = aikit_nix("check", name, cwd=tmp_path)
    assert (done.returncode, done.stderr.startswith(r"error: \udcff\x1b.yaml:2:")) == (1, True)


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text(HEAD + MODEL)
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = aikit_nix("check", "é.yaml", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (1, "\\xe9.yaml: 1 error\n")
