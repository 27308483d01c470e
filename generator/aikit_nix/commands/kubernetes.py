"""`aikit-nix k8s`: manifests for a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.commands import options


@click.command()
@click.argument("reference", required=False)
@options.FLAKE
@options.SYSTEM
@options.OUTPUT
@click.option(
    "--server", metavar="IMAGE", help="Mount the models as an image volume into this image of llama.cpp's server."
)
def k8s(reference: str | None, flake: Path, system: str | None, output: Path | None, server: str | None) -> None:
    """Write a Deployment and a Service for the flake's image.

    REFERENCE is what nodes pull, best with its digest, as `aikit-nix push` prints it.
    """
    from aikit_nix.flakes import materials
    from aikit_nix.image import kubernetes

    options.write(kubernetes.manifests(materials.read(flake), system, reference, server), output)
