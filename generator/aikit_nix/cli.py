"""The command line: wiring and printing, no logic.

Commands import what they use inside their bodies: `aikit-nix gen` must not pay for what `aikit-nix init` needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from aikit_nix import __version__
from aikit_nix.errors import AikitError, Diagnostic


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to stderr, a line each."""
    for diagnostic in diagnostics:
        click.echo(str(diagnostic), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Compile an aikitfile into a Nix flake whose `nix build` emits an OCI image."""


@cli.command()
@click.argument("aikitfile", type=click.Path(path_type=Path), default=Path("aikitfile.yaml"))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that the flake is written to.  [default: the current folder]",
)
@click.option("--runtime", help="avx, avx2, avx512 or cuda.  [default: the file's runtime, else avx]")
@click.option(
    "--engine", help="localai or llama-server.  [default: localai on nixpkgs, llama-server on debian]"
)
@click.option("--packages", default="nixpkgs", show_default=True, help="nixpkgs or debian.")
@click.option(
    "--escapes",
    default="auto",
    show_default=True,
    help="How AIKit's shell escapes in templates and config are read: auto, shell or verbatim.",
)
@click.option("--name", help="Name of the image.  [default: the first model's name]")
@click.option("--tag", help="Tag of the image.  [default: the runtime]")
@click.option("--nixpkgs", metavar="REV", help="Another nixpkgs revision, as REV#NARHASH or a locked flake node.")
@click.option(
    "--debian-lock",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="AIKIT_DEBIAN_LOCK",
    help="Another lock of the Debian packages (see `aikit-nix debian-lock`).",
)
@click.option("--force", is_flag=True, help="Overwrite a flake.nix that aikit-nix did not write.")
def gen(aikitfile: Path, output: Path, **options: object) -> None:
    """Write the flake of an AIKITFILE (default: ./aikitfile.yaml)."""
    raise NotImplementedError


def main() -> None:
    """Entry point. Exit status: 0 done, 1 something that the user can mend, 130 interrupted."""
    try:
        cli.main(standalone_mode=False)
    except AikitError as exception:
        report(exception.diagnostics)
        sys.exit(1)
    except click.ClickException as exception:
        click.echo(f"error: {exception.format_message()}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
