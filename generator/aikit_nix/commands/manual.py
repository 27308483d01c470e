"""`aikit-nix man`, `help` and `version`: the manual page, which is made from the help of the commands, and the help itself."""

from __future__ import annotations

import click

from aikit_nix import __version__
from aikit_nix.base import console


@click.command()
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page: `aikit-nix man > aikit-nix.1`."""
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)  # noqa: S101 (the root is the group of all commands)
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
    console.write("\n".join(lines) + "\n")


@click.command(name="help")
@click.argument("command", required=False)
@click.pass_context
def help(context: click.Context, command: str | None) -> None:  # noqa: A001 (the command's name)
    """Show the help of a COMMAND, or of all."""
    root = context.find_root()
    assert isinstance(root.command, click.Group)  # noqa: S101 (the root is the group of all commands)
    if command is None:
        console.write(root.get_help() + "\n")
        return
    name, found, _ = root.command.resolve_command(root, [command])
    assert found  # noqa: S101 (or it was no command)
    console.write(click.Context(found, info_name=name, parent=root).get_help() + "\n")


@click.command()
def version() -> None:
    """Show the version, and those of what it pins."""
    from aikit_nix.flakes import ages

    console.write(f"aikit-nix {__version__} ({ages.versions()})\n")


def _paragraphs(text: str) -> list[str]:
    found = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n") if part.strip()]
    return [line for part in found for line in (_text(part), ".PP")][:-1]


def _text(text: str) -> str:
    """roff reads backslashes, and a dot or quote where a line begins."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped
