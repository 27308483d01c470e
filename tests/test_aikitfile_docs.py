"""What docs/aikitfile.md shows is what the tool does.

`UPDATE=1 pytest tests/test_aikitfile_docs.py` writes the messages into the page anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from aikit_nix.cli import cli

PAGE = Path(__file__).resolve().parents[1] / "docs/aikitfile.md"
MISTAKES = re.compile(r"```yaml mistake\n(.*?)```\n\n```console\n(.*?)```\n", re.DOTALL)


def what_check_says(folder: Path, aikitfile: str) -> str:
    (folder / "aikitfile.yaml").write_text(aikitfile)
    for source in re.findall(r"source: ([\w.-]+\.gguf)", aikitfile):
        (folder / source).write_bytes(b"GGUF\3\0\0\0" + bytes(16))
    result = CliRunner().invoke(cli, ["check"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return "$ aikit-nix check\n" + result.stderr + result.stdout


def test_the_five_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    mistakes = MISTAKES.findall(page)
    assert len(mistakes) == 5
    if os.environ.get("UPDATE"):
        renewed = MISTAKES.sub(
            lambda found: f"```yaml mistake\n{found[1]}```\n\n```console\n{what_check_says(tmp_path, found[1])}```\n",
            page,
        )
        PAGE.write_text(renewed)
        return
    for aikitfile, console in mistakes:
        assert what_check_says(tmp_path, aikitfile) == console


def test_the_completion_lines_work() -> None:
    shells = re.findall(r"_AIKIT_NIX_COMPLETE=(\w+)_source aikit-nix", PAGE.read_text())
    assert shells == ["bash", "zsh", "fish"]
    for shell in shells:
        result = CliRunner().invoke(cli, prog_name="aikit-nix", env={"_AIKIT_NIX_COMPLETE": f"{shell}_source"})
        assert "_AIKIT_NIX_COMPLETE" in result.stdout, shell


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("aikit-nix e", {"explain"}),
        ("aikit-nix check --f", {"--format"}),
        ("aikit-nix check --format s", {"sarif"}),
        ("aikit-nix init --runtime avx5", {"avx512"}),
        ("aikit-nix gen --engine l", {"localai", "llama-server"}),
    ],
)
def test_completion_knows_commands_options_and_words(words: str, expected: set[str]) -> None:
    env = {"_AIKIT_NIX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(cli, prog_name="aikit-nix", env=env)
    assert {line.split(",")[1] for line in result.stdout.splitlines()} == expected
