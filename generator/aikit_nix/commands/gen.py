"""`aikit-nix gen` and `build`: the flake of an aikitfile, and its image."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aikit_nix.base import data
from aikit_nix.base.console import report, say
from aikit_nix.commands import options

if TYPE_CHECKING:
    from aikit_nix.flakes.generate import Request


@click.command()
@options.generates
@click.option("--elsewhere", is_flag=True, help="The flake is built on another machine: do without Nix on this one.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 unless the flake is what `gen` writes.")
def gen(request: Request, elsewhere: bool, check: bool) -> None:
    """Write the flake of an AIKITFILE (default: ./aikitfile.yaml).

    What is chosen here is kept in the flake, and the next `gen` keeps to it. With --check, an edited file, other pins of
    Debian's packages and all else that aikitfile, lock and choices do not give is named, byte for byte.
    """
    from aikit_nix.flakes import generate

    if check:
        if request.forget or request.force:
            raise click.UsageError("--check writes nothing, and goes neither with --forget nor with --force")
        kept = generate.check(request, report)
        words = kept.words() + ["--debian-lock ..."] * bool(kept.debian_lock)
        say(f"chosen: {' '.join(words) or 'nothing but the defaults'}")
        say(f"{request.output.resolve()} is what aikitfile, lock and these choices give")
        return
    done = generate.write(request, elsewhere=elsewhere, report=report)
    for line in done.lines():
        say(line)


@click.command()
@options.generates
@click.option(
    "--package",
    "attribute",
    metavar="NAME",
    default="default",
    show_default=True,
    help="What of the flake is built: `archive`, `stream`, `image-avx2`, `manifest` (which needs no model) ...",
)
@click.option(
    "--out-link", type=click.Path(path_type=Path), default=Path("result"), show_default=True, help="The link to it."
)
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
def build(request: Request, attribute: str, out_link: Path, jobs: int) -> None:
    """Build the image of an AIKITFILE in one go.

    That is `gen`, `fetch` of what is missing, and `nix build`. Every model has to be pinned, in the file or in
    aikit.lock. What follows `--` is for Nix: `aikit-nix build -- -L`.
    """
    from aikit_nix.flakes import generate, inputs
    from aikit_nix.models import project

    done = generate.write(request, report=report)
    say(*(line for line in done.lines() if not line.startswith("next: ")))
    if attribute != "manifest":
        generate.bring_models(project.read(request.aikitfile, lock_path=request.lock), request.output, jobs)
    built = inputs.build(request.output, attribute, out_link=out_link)
    say(f"built {out_link} -> {built}")
    if attribute == "default":
        where = "" if request.output == data.FLAKE else f" --flake {shlex.quote(str(request.output))}"
        say(f"next: aikit-nix run{where}, or aikit-nix push REGISTRY/NAME:TAG{where}")
