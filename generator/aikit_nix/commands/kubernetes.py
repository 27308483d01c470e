"""`aikit-nix k8s`: manifests for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aikit_nix.commands import options


@click.command()
@click.argument("reference", required=False)
@options.FLAKE
@options.SYSTEM
@click.option("--all-systems", is_flag=True, help="For the index of `push --all-systems`: nodes of any architecture.")
@options.OUTPUT
@click.option(
    "--server", metavar="IMAGE", help="Mount the models as an image volume into this image of llama.cpp's server."
)
@click.option("--namespace", help="The namespace to write into the manifests.")
@click.option(
    "--cpus", type=click.IntRange(1, 1024), default=2, show_default=True, help="Processors to ask for, and threads."
)
@click.option("--network-policy", is_flag=True, help="Let only the namespace's Pods ask, and the server nobody.")
@click.option("--key-secret", metavar="NAME", help="The Secret whose `api-key` clients have to send.")
def k8s(
    reference: str | None,
    flake: Path,
    system: str | None,
    all_systems: bool,
    output: Path | None,
    server: str | None,
    **wishes: Any,
) -> None:
    """Write a Deployment and a Service for the flake's image.

    REFERENCE is what nodes pull, best with its digest, as `aikit-nix push` prints it.
    """
    from aikit_nix.base import console
    from aikit_nix.base.errors import Diagnostic, Severity
    from aikit_nix.flakes import materials
    from aikit_nix.image import kubernetes

    if all_systems and system:
        raise click.UsageError("of one system, or of --all-systems")
    if server == "":
        raise click.UsageError("--server names no image")
    found = materials.read(flake)
    wanted = None if all_systems else found.system(system)
    text = kubernetes.manifests(found, wanted, reference, server, kubernetes.Wishes(**wishes))
    options.write(text, output)
    if not reference:
        said = "no node can pull the image by that name: push it, and give REFERENCE as `aikit-nix push` prints it"
        console.report([Diagnostic(Severity.WARNING, "no-reference", said, None)])
