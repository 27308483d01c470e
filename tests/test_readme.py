"""The README's examples do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click import Context, Option

from aikit_nix import __version__
from aikit_nix.cli import cli
from support.command import aikit_nix

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("nix")
def test_the_example_becomes_a_flake(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    (tmp_path / "aikitfile.yaml").write_text(example)
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    (gen,) = [command[1:] for command in commands if command[:2] == ["aikit-nix", "gen"]]
    done = aikit_nix(*gen, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    page = (ROOT / "docs/flake.md").read_text(encoding="utf-8")
    assert f"```nix\n{(tmp_path / 'flake/flake.nix').read_text()}```\n" in page
    # The name under which the README runs it.
    (run,) = [command for command in commands if command[:2] == ["docker", "run"]]
    assert run[-1] == "llama-2-7b-chat:avx"
    assert "image llama-2-7b-chat," in done.stdout
    assert "for avx on" in done.stdout


def test_every_command_option_and_file_that_it_names_exists() -> None:
    commands = set(re.findall(r"`aikit-nix ([a-z0-9-]+)", README))
    assert len(commands) > 5
    context = Context(cli)
    assert commands <= set(cli.list_commands(context))
    loaded = [command for name in commands if (command := cli.get_command(context, name))]
    known = {option for command in loaded for parameter in command.params for option in parameter.opts}
    # docker's and skopeo's own.
    text = re.sub(r"`docker run [^`]*`|--preserve-digests|```text.*?```", "", README, flags=re.DOTALL)
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^:)]+)\)", README)]
    assert len(targets) > 2
    for target in targets:
        assert (Path(__file__).parents[1] / target).is_file(), target


def test_the_rooms_are_those_of_the_architecture_and_use_only_those_above() -> None:
    root = Path(__file__).parents[1]
    text = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = re.findall(r"^    ([a-z]\S*/)  ", text, re.MULTILINE)
    assert len(folders) > 3
    assert all((root / folder).is_dir() for folder in folders)
    rooms = re.findall(r"^      ([a-z]+)/  ", text, re.MULTILINE)
    package = root / "generator/aikit_nix"
    assert set(rooms) == {folder.name for folder in package.iterdir() if (folder / "__init__.py").is_file()}
    for place, room in enumerate(rooms):
        for file in (package / room).rglob("*.py"):
            used = re.findall(r"^ *(?:from|import) aikit_nix\.([a-z]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert not {*used} & {*rooms[place + 1 :]}, f"{file} uses a room below its own"


def test_the_manual_page_has_every_command_and_option() -> None:
    """And no other: `tools/man.py` makes it anew."""
    page = (ROOT / "docs/aikit-nix.1").read_text(encoding="utf-8").replace("\\-", "-")
    assert f'"aikit-nix {__version__}"' in page
    context = Context(cli)
    sections = dict(re.findall(r"^\.SS aikit-nix (\S+) (.*?)(?=^\.S[SH])", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == cli.list_commands(context)
    for name, section in sections.items():
        command = cli.get_command(context, name)
        assert command is not None
        shown = [each for each in command.params if isinstance(each, Option) and not each.hidden]
        # Former names of an option are taken, and not shown
        assert all(any(re.search(rf"{name}\b", section) for name in each.opts) for each in shown)
        lines = re.findall(r"^\.TP\n\.B (-.*)", section, re.MULTILINE)
        assert len(lines) == len(shown)
