"""`aikit-nix gen`: the flake of an aikitfile."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.commands import options
from aikit_nix.console import report, say


@click.command()
@options.AIKITFILE
@options.LOCK
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that the flake is written to.  [default: the current folder]",
)
@options.RUNTIME
@options.ENGINE
@options.PACKAGES
@options.ESCAPES
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
    lock_path: Path | None,
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
    from aikit_nix import cpu, fetch, flake, nix, pipeline, plan
    from aikit_nix.aikitfile import Runtime
    from aikit_nix.compat import Escapes

    chosen = plan.Options(
        runtime=Runtime(runtime) if runtime else None,
        engine=plan.Engine(engine) if engine else None,
        packages=plan.Packages(packages),
        name=name,
        tag=tag,
        cuda_capabilities=cuda_capabilities,
    )
    project = pipeline.read(aikitfile, Escapes(escapes), lock_path)
    report(project.findings)
    report(pipeline.links(project.aikitfile.models, project.folder))
    pinned, local = pipeline.pin(project)
    planned, warnings = plan.make(pinned, chosen, pipeline.headers(project))
    report(warnings)
    report(cpu.warnings({system: platform.default for system, platform in planned.systems.items()}))
    files = flake.render(planned, nixpkgs, debian_lock)
    report(nix.require(planned.packages.minimum_nix))
    report(nix.sandbox_warning())

    for file in fetch.add_local(local):
        say(f"added {file} to the Nix store")
    set_aside = flake.write(files, output, force=force)
    for path in set_aside:
        say(f"kept what was there as {path}")
    say(f"wrote {', '.join(files.top_level())} to {output.resolve()}: {planned.summary()}")
    report(flake.show_to_nix(files, output))
    report(flake.copied_models(output, (file for _, file in local)))
    environment = {}
    if planned.packages is plan.Packages.DEBIAN:
        from aikit_nix import debian

        environment = debian.build_environment()
    say(f"next: {nix.build_command(output, environment)}")
