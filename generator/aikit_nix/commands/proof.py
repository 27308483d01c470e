"""What shows where an image comes from and that it is what it should be: `sbom`, `provenance`."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.commands import options


@click.command()
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.OUTPUT
def sbom(flake: Path, lock_path: Path | None, system: str | None, output: Path | None) -> None:
    """Write the image's bill of materials: CycloneDX 1.6, from the flake and the lock, without building."""
    from aikit_nix import recipe
    from aikit_nix.image import sbom as bill

    found = recipe.read(flake, lock_path)
    options.write(bill.cyclonedx(found, found.system(system)), output)


@click.command()
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.OUTPUT
def provenance(flake: Path, lock_path: Path | None, system: str | None, output: Path | None) -> None:
    """Write the image's SLSA provenance: every input by its digest, from the flake and the lock, without building.

    The predicate alone, as `cosign attest --type slsaprovenance1 --predicate` takes it.
    """
    from aikit_nix import nix, recipe
    from aikit_nix.image import provenance as slsa

    found = recipe.read(flake, lock_path)
    content = slsa.predicate(found, found.system(system), nix.version())
    options.write(slsa.encode(content), output)
