"""`aikit-nix push`: what is done with an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
@click.option("--all-systems", is_flag=True, help="One index of the flake's images for all its architectures.")
@click.option("--modelpack", is_flag=True, help="The models alone, as a ModelPack artifact.")
def push(
    references: tuple[str, ...],
    source: str,
    mount_from: tuple[str, ...],
    insecure: bool,
    chunk: int,
    jobs: int,
    all_systems: bool,
    modelpack: bool,
) -> None:
    """Bring the flake's image to registries, as REGISTRY/REPOSITORY:TAG.

    Only what a registry lacks is sent, a model straight from the Nix store: where the registry has the models, this
    machine needs none of them. Logins are those of docker and podman.
    """
    from aikit_nix.errors import AikitError, Diagnostic
    from aikit_nix.image import find, reference
    from aikit_nix.image import push as pushing

    if modelpack:
        return _push_models(references, source, insecure)
    if all_systems:
        return _push_index(references, source, insecure, mount_from=mount_from, chunk=chunk << 20, jobs=jobs)
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
    return None


def _push_index(references: tuple[str, ...], source: str, insecure: bool, **options: Any) -> None:
    from aikit_nix import recipe
    from aikit_nix.image import index, reference
    from aikit_nix.image.find import Layout, build
    from aikit_nix.image.layout import read_layout

    systems = sorted(recipe.read(Path(source)).plan.systems)
    folders = build(source, *(f"packages.{system}.manifest" for system in systems))
    images = [Layout(read_layout(folder), folder) for folder in folders]
    tag = images[0].image.name.rpartition(":")[2] or "latest"
    for text in references:
        target = reference.parse(text, tag)
        digest, done = index.push(images, target, insecure=insecure, **options)
        for system, each in zip(systems, done, strict=True):
            console.say(f"{system}: {each}", err=True)
        console.show(f"{target.name}@{digest}")


def _push_models(references: tuple[str, ...], source: str, insecure: bool) -> None:
    from aikit_nix import recipe
    from aikit_nix.http import Client
    from aikit_nix.image import modelpack, reference
    from aikit_nix.image.registry import Repository

    found = recipe.read(Path(source))
    with Client() as client:
        for text in references:
            target = reference.parse(text)
            repository = Repository(client, target.registry, target.repository, actions="pull,push", insecure=insecure)
            digest, sent = modelpack.push(found, repository, target.reference)
            console.say(f"{console.size(sent)} sent", err=True)
            console.show(f"{target.name}@{digest}")
