"""The command line: wiring and printing, no logic.

Commands import what they use inside their bodies: `gen` must not pay for what `init` needs.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import click

from aikit_nix import __version__, commands
from aikit_nix.console import report
from aikit_nix.errors import AikitError, error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Compile an aikitfile into a Nix flake whose `nix build` emits an OCI image."""


for command in commands.ALL:
    cli.add_command(command)


@cli.command()
@click.argument("aikitfile", type=click.Path(path_type=Path), default=Path("aikitfile.yaml"))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that the flake is written to.  [default: the current folder]",
)
@commands.RUNTIME
@commands.ENGINE
@commands.PACKAGES
@commands.ESCAPES
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
    "--debian-lock",
    type=click.Path(path_type=Path),
    envvar="AIKIT_DEBIAN_LOCK",
    help="Another lock of the Debian packages (see `aikit-nix debian-lock`).",
)
@click.option("--force", is_flag=True, help="Set aside, as flake.nix~, what aikit-nix did not write.")
def gen(
    aikitfile: Path,
    output: Path,
    runtime: str | None,
    engine: str | None,
    packages: str,
    escapes: str,
    cuda_capabilities: tuple[str, ...],
    name: str | None,
    tag: str | None,
    nixpkgs: str | None,
    debian_lock: Path | None,
    force: bool,
) -> None:
    """Write the flake of an AIKITFILE (default: ./aikitfile.yaml)."""
    from aikit_nix import flake, nix, plan, store
    from aikit_nix.aikitfile import Runtime, read
    from aikit_nix.compat import Escapes

    options = plan.Options(
        runtime=Runtime(runtime) if runtime else None,
        engine=plan.Engine(engine) if engine else None,
        packages=plan.Packages(packages),
        name=name,
        tag=tag,
        cuda_capabilities=cuda_capabilities,
    )
    parsed, warnings = read(aikitfile, Escapes(escapes))
    report(warnings)
    folder = aikitfile.parent
    local = store.hash_local(parsed, folder)
    planned, warnings = plan.make(parsed, options, local)
    report(warnings)
    files = flake.render(planned, nixpkgs, debian_lock)
    report(nix.require(planned.packages.minimum_nix))

    for path in store.add_local(parsed, planned, folder):
        click.echo(f"added {path} to the Nix store")
    set_aside = flake.write(files, output, force=force)
    for path in set_aside:
        click.echo(f"kept what was there as {path}")
    click.echo(f"wrote {', '.join(files.top_level())} to {output.resolve()}: {planned.summary()}")
    report(flake.show_to_nix(files, output))
    report(flake.copied_models(output, (folder / source for source in local)))
    environment = {}
    if planned.packages is plan.Packages.DEBIAN:
        from aikit_nix import debian

        environment = debian.build_environment()
    click.echo(f"next: {nix.build_command(output, environment)}")


@cli.command("debian-lock")
@click.option("--check", is_flag=True, help="Only say which pinned packages no mirror has any more.")
@click.option("--mirror", metavar="URL", help="A Debian mirror.  [default: AIKIT_DEBIAN_MIRROR, or apt's]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("debian-lock.json"),
    show_default=True,
    help="The lock to write; with --check the lock to look at, if it is there.",
)
def debian_lock(check: bool, mirror: str | None, output: Path) -> None:
    """Pin the Debian packages that a mirror has now, by its signed index."""
    from aikit_nix import debian

    mirrors = debian.mirrors([mirror] if mirror else [])
    if check:
        pinned = output if output.is_file() else debian.LOCK
        if gone := debian.missing(debian.Lock.read(pinned), mirrors):
            names = ", ".join(f"{package.name} {package.version}" for package in gone)
            raise error(f"no mirror has {names} of {pinned}: pin what there is now with `aikit-nix debian-lock`")
        click.echo(f"all packages of {pinned} can be had")
        return
    click.echo(f"reading the index of {mirrors[0]}", err=True)
    lock, warnings = debian.renew(mirrors[0])
    report(warnings)
    lock.write(output)
    click.echo(f"pinned {len(lock.packages)} packages of {lock.suite}, {lock.date}, in {output}")
    click.echo(f"next: aikit-nix gen --packages debian --debian-lock {output}")


@cli.command("update-pins")
@click.argument("tag", required=False)
@click.option(
    "--nixpkgs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="NIXPKGS",
    required=True,
    help="A nixpkgs checkout to build with.  [default: NIXPKGS]",
)
def update_pins(tag: str | None, nixpkgs: Path) -> None:
    """For maintainers: move LocalAI in nix/pins.json to TAG (default: the newest release)."""
    from aikit_nix import pins

    changes = pins.update(tag, nixpkgs)
    for change in changes:
        click.echo(f"{change.name}: {change.before} -> {change.after}")
    click.echo("next: build it, run the tests, read docs/localai.md again" if changes else "nothing changed")


def main() -> None:
    """Entry point. Exit status: 0 done, 1 something that the user can mend, 130 interrupted."""
    # A process this short: collecting garbage costs more than it frees
    gc.disable()
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
