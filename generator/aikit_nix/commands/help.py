"""`aikit-nix help` and `version`."""

from __future__ import annotations

import click

from aikit_nix import __version__
from aikit_nix.base import console


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
