"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix import schema

FILE = click.Path(path_type=Path, dir_okay=False)
DEFAULT = Path("aikitfile.yaml")
AIKITFILE = click.argument("aikitfile", type=FILE, default=DEFAULT)
FILES = click.argument("files", metavar="[FILE]...", type=FILE, nargs=-1)
LOCK = click.option("--lock", "lock_path", type=FILE, help="The lock.  [default: aikit.lock beside the aikitfile]")
ESCAPES = click.option(
    "--escapes",
    type=click.Choice(["auto", "shell", "verbatim"]),
    default="auto",
    show_default=True,
    help="How AIKit's shell escapes in templates and config are read.",
)
RUNTIME = click.option(
    "--runtime",
    type=click.Choice(schema.RUNTIMES),
    help="What to compile for.  [default: the file's runtime, else avx]",
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["localai", "llama-server"]),
    help="The server in the image.  [default: localai on nixpkgs, llama-server on debian]",
)
PACKAGES = click.option(
    "--packages",
    type=click.Choice(["nixpkgs", "debian"]),
    default="nixpkgs",
    show_default=True,
    help="Where the programs come from.",
)
