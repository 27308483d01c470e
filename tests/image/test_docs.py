"""The examples of docs/images.md, with a registry on loopback in the place of the one there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click import Context

from aikit_nix.cli import cli
from support import registry
from support.command import aikit_nix

TEXT = (Path(__file__).parents[2] / "docs/images.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def test_the_examples_work(tiny_flake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := registry.missing():
        pytest.skip(reason)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = set()
    with registry.serve(tmp_path) as server:
        for line in COMMANDS:
            _, command, *arguments = shlex.split(line.replace("ghcr.io", server.address))
            if command in ("load", "run"):  # see their own tests
                continue
            ran = aikit_nix(command, *arguments, cwd=tiny_flake.parent)
            assert ran.returncode == 0, ran.stderr
            done.add(command)
    assert done == {"push", "inspect", "diff"}


def test_every_option_that_it_names_exists() -> None:
    context = Context(cli)
    loaded = [command for name in cli.list_commands(context) if (command := cli.get_command(context, name))]
    known = {
        option
        for command in loaded
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    text = re.sub(r"`(nix-store|docker|skopeo)[^`]*`", "", TEXT)
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known | {"--threads", "--fast"}  # llama-server's, crane's
