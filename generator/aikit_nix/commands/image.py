"""`aikit-nix load`, `push`: what is done with an image."""

from __future__ import annotations

import shlex

import click

from aikit_nix import console

FROM = click.option(
    "--from",
    "source",
    default=".",
    metavar="FLAKE|LAYOUT",
    help="Folder or reference of the flake, or an OCI layout.  [default: the current folder]",
)


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@FROM
@click.option("--mount-from", metavar="REPOSITORY", multiple=True, help="Another repository there that has some of it.")
@click.option("--insecure", is_flag=True, help="Speak plain HTTP with the registry.")
@click.option(
    "--chunk",
    type=click.IntRange(1, 5000),
    default=64,
    show_default=True,
    metavar="MIB",
    help="Most MiB that are sent in one request.",
)
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Uploads at a time.")
def push(
    references: tuple[str, ...], source: str, mount_from: tuple[str, ...], insecure: bool, chunk: int, jobs: int
) -> None:
    """Bring the flake's image to registries, as REGISTRY/REPOSITORY:TAG.

    Only what a registry lacks is sent, a model straight from the Nix store: where the registry has the models, this
    machine needs none of them. Logins are those of docker and podman.
    """
    from aikit_nix.errors import AikitError, Diagnostic
    from aikit_nix.image import find, reference
    from aikit_nix.image import push as pushing

    found = find.layout_of(source)
    tag = found.image.name.rpartition(":")[2] or "latest"
    targets = [reference.parse(text, tag) for text in references]
    problems: list[Diagnostic] = []
    for target in targets:
        try:
            done = pushing.push(
                found.image,
                found.folder,
                target,
                mount_from=mount_from,
                insecure=insecure,
                chunk=chunk << 20,
                jobs=jobs,
            )
        except AikitError as failed:
            problems += failed.diagnostics
            continue
        console.say(str(done), err=True)
        console.show(f"{done.reference}@{done.digest}")
    if problems:
        raise AikitError(*problems)


@click.command()
@FROM
@click.option(
    "--with",
    "program",
    type=click.Choice(["docker", "podman", "nerdctl", "ctr"]),
    help="The container engine.  [default: the first of these that works]",
)
def load(source: str, program: str | None) -> None:
    """Load the flake's image into docker, podman or containerd, without a copy of it on the way."""
    from aikit_nix.errors import error
    from aikit_nix.image import engines, find
    from aikit_nix.image import load as loading

    engine = engines.choose(program, tuple(engines.ENGINES.values()))
    if engine is None:
        raise error("none of docker, podman, nerdctl and ctr works here: `podman info` says why", code="no-engine")
    image, stream = find.stream_of(source)
    loading.load(image, stream, engine)
    console.say(f"loaded {image.name} into {engine.program}")
    if engine.gpu:
        gpu = image.labels.get("aikit-nix.runtime") == "cuda"
        console.say(f"next: {shlex.join(engine.run(image.name, 8080, (), gpu=gpu))}")
