"""Makes the manual page of the commands' help: `man.py`, after a change of commands or options.

It is committed, as wheels and Nix's package install it: making it needs all that aikit-nix does.
"""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix import __version__
from aikit_nix.cli import cli

PAGE = Path(__file__).resolve().parents[1] / "docs/aikit-nix.1"


def page(group: click.Group) -> str:
    """The page, for roff."""
    root = click.Context(group, info_name="aikit-nix")
    lines = [
        f'.TH AIKIT-NIX 1 "" "aikit-nix {__version__}" "User Commands"',
        ".SH NAME",
        f"aikit-nix \\- {_text(group.get_short_help_str(200))}",
        ".SH SYNOPSIS",
        ".B aikit-nix",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        ".SH COMMANDS",
    ]
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=root)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f".SS {_text(f'aikit-nix {name} {usage}')}", *_paragraphs(command.help or "")]
        for parameter in command.params:
            if record := parameter.get_help_record(inner):
                lines += [".TP", f".B {_text(record[0])}", _text(" ".join(record[1].split()))]
        lines += [".PP", *_paragraphs(command.epilog or "")]
    lines += [
        ".SH EXIT STATUS",
        "0 done, 1 something that the user can mend, 2 a wrong command line, 130 interrupted.",
        ".SH FILES",
        "aikitfile.yaml, aikit.lock beside it; flake.nix, flake.lock and aikit/ in the flake's folder.",
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    found = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n") if part.strip()]
    return [line for part in found for line in (_text(part), ".PP")][:-1]


def _text(text: str) -> str:
    """roff reads backslashes, and a dot or quote where a line begins."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    PAGE.write_text(page(cli), encoding="utf-8")
