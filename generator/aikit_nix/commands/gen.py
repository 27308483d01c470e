"""`aikit-nix gen` and `build`: the flake of an aikitfile, and its image."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.base.console import report, say
from aikit_nix.commands import options


@click.command()
@options.AIKITFILE
@options.LOCK
@options.INTO
@options.RUNTIME
@options.ENGINE
@options.PACKAGES
@options.ESCAPES
@options.DROP
@click.option(
    "--cuda-capability",
    "cuda_capabilities",
    multiple=True,
    metavar="X.Y",
    help="Compile for this NVIDIA compute capability only; may be repeated.  [default: nixpkgs' list]",
)
@click.option("--name", help="Name of the image.  [default: the first model's name]")
@click.option("--tag", help="Tag of the image.  [default: the runtime]")
@click.option("--nixpkgs", metavar="REF", help="Another nixpkgs: a revision (40 hex digits) or a flake reference.")
@click.option(
    "--input",
    "library",
    metavar="REF",
    help="Take the Nix library from this flake reference of aikit-nix instead of writing a copy of it.",
)
@click.option(
    "--debian-lock",
    type=click.Path(path_type=Path),
    envvar="AIKIT_DEBIAN_LOCK",
    help="Another lock of the Debian packages (see `aikit-nix debian-lock`).",
)
@click.option("--forget", is_flag=True, help="Keep nothing of what was chosen for the flake that is there.")
@click.option("--elsewhere", is_flag=True, help="The flake is built on another machine: do without Nix on this one.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 unless the flake is what `gen` writes.")
@click.option("--force", is_flag=True, help="Set aside, as flake.nix~, what aikit-nix did not write.")
def gen(
    aikitfile: Path,
    lock_path: Path | None,
    flake: Path,
    runtime: str | None,
    engine: str | None,
    packages: str | None,
    escapes: str | None,
    drop_settings: bool | None,
    cuda_capabilities: tuple[str, ...],
    name: str | None,
    tag: str | None,
    nixpkgs: str | None,
    library: str | None,
    debian_lock: Path | None,
    forget: bool,
    elsewhere: bool,
    check: bool,
    force: bool,
) -> None:
    """Write the flake of an AIKITFILE (default: ./aikitfile.yaml).

    What is chosen here is kept in the flake, and the next `gen` keeps to it. With --check, an edited file, other pins of
    Debian's packages and all else that aikitfile, lock and choices do not give is named, byte for byte.
    """
    from aikit_nix.flakes import generate
    from aikit_nix.flakes.choices import Choices

    chosen = Choices(
        packages=packages,
        engine=engine,
        runtime=runtime,
        name=name,
        tag=tag,
        cuda_capabilities=cuda_capabilities or None,
        escapes=escapes,
        drop_settings=drop_settings,
        nixpkgs=nixpkgs,
        input=library,
    )
    if check:
        if forget or force:
            raise click.UsageError("--check writes nothing, and goes neither with --forget nor with --force")
        kept = generate.check(aikitfile, flake, chosen, lock_path=lock_path, debian_lock=debian_lock, report=report)
        words = kept.words() + ["--debian-lock ..."] * bool(kept.debian_lock)
        say(f"chosen: {' '.join(words) or 'nothing but the defaults'}")
        say(f"{flake.resolve()} is what aikitfile, lock and these choices give")
        return
    done = generate.write(
        aikitfile,
        flake,
        chosen,
        lock_path=lock_path,
        debian_lock=debian_lock,
        forget=forget,
        elsewhere=elsewhere,
        force=force,
        report=report,
    )
    for line in done.lines():
        say(line)


@click.command()
@options.AIKITFILE
@options.LOCK
@options.INTO
@options.RUNTIME
@options.ENGINE
@options.PACKAGES
@options.DROP
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
def build(
    aikitfile: Path,
    lock_path: Path | None,
    flake: Path,
    runtime: str | None,
    engine: str | None,
    packages: str | None,
    drop_settings: bool | None,
    attribute: str,
    out_link: Path,
    jobs: int,
) -> None:
    """Build the image of an AIKITFILE in one go.

    That is `fetch` of what is missing, `gen` and `nix build`. Every model has to be pinned, in the file or in
    aikit.lock.
    """
    from aikit_nix.flakes import generate, inputs
    from aikit_nix.flakes.choices import Choices
    from aikit_nix.models import locking
    from aikit_nix.models import project as pipeline

    if attribute != "manifest":
        project = pipeline.read(aikitfile, lock_path=lock_path)
        added: list[Path] = []
        pinned, _ = pipeline.pin(project, added)
        say(*(f"added {file} to the Nix store" for file in added))
        locking.bring(pinned, project.lock, jobs)
    chosen = Choices(packages=packages, engine=engine, runtime=runtime, drop_settings=drop_settings)
    done = generate.write(aikitfile, flake, chosen, lock_path=lock_path, report=report)
    say(*(line for line in done.lines() if not line.startswith("next: ")))
    built = inputs.build(flake, attribute, out_link=out_link)
    say(f"built {out_link} -> {built}")
