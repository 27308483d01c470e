"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.aikitfile import schema

FILE = click.Path(path_type=Path, dir_okay=False)
DEFAULT = Path("aikitfile.yaml")
AIKITFILE = click.argument("aikitfile", type=FILE, default=DEFAULT)
FILES = click.argument("files", metavar="[FILE]...", type=FILE, nargs=-1)
LOCK = click.option("--lock", "lock_path", type=FILE, help="The lock.  [default: aikit.lock beside the aikitfile]")
ESCAPES = click.option(
    "--escapes",
    type=click.Choice(["auto", "shell", "verbatim"]),
    help="How AIKit's shell escapes in templates and config are read.  [default: auto]",
)
RUNTIME = click.option(
    "--runtime",
    type=click.Choice([*schema.RUNTIMES, "cpu"]),
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
    help="Where the programs come from.  [default: nixpkgs]",
)
DROP = click.option(
    "--drop-settings",
    is_flag=True,
    default=None,
    help="Leave out, with a warning, what of the config changes the answers and only LocalAI does.",
)
INTO = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder of the flake.  [default: the current folder]",
)
FLAKE = click.option(
    "--flake",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that `gen` wrote.  [default: the current folder]",
)
SYSTEM = click.option(
    "--system",
    type=click.Choice(["x86_64-linux", "aarch64-linux"]),
    help="Whose image is meant.  [default: this machine's]",
)
OUTPUT = click.option("-o", "--output", type=FILE, help="File to write.  [default: standard output]")
LOG = click.option("--log", is_flag=True, help="Also tell the public transparency log (Rekor).")
INSECURE = click.option(
    "--insecure/--secure",
    default=None,
    help="Plain HTTP with the registry, or TLS that is verified and nothing else.  [default: TLS; on this machine any, or HTTP]",
)


def write(text: str, output: Path | None) -> None:
    """Write what a command made to a file or to standard output. Raises AikitError."""
    from aikit_nix.base import console, files

    if output is None:
        console.write(text)
    else:
        files.write_atomic(output, text.encode())
        console.say(f"wrote {output}")
