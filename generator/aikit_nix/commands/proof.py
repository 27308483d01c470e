"""What shows where an image comes from and that it is what it should be: `verify`, `sbom`, `provenance`."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.base import console
from aikit_nix.commands import options


@click.command()
@click.argument("image", required=False)
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.INSECURE
@click.option("--rebuild", is_flag=True, help="Build everything again, and compare.")
@click.pass_context
def verify(
    context: click.Context,
    image: str | None,
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    insecure: bool | None,
    rebuild: bool,
) -> None:
    """Check that an IMAGE is the one that follows from flake and lock.

    Exits with 1 where anything differs, or could not be compared. IMAGE is an OCI layout (a folder), a docker-archive, or
    REGISTRY/NAME:TAG. The manifest that the flake gives is built, without the models' bytes, and IMAGE has to be that
    one; every blob is read. Without IMAGE, the models and packages in this machine's Nix store.
    """
    from aikit_nix.attest import reproduce
    from aikit_nix.attest import verify as verifier
    from aikit_nix.base.errors import AikitError
    from aikit_nix.flakes import materials
    from aikit_nix.http.client import Client
    from aikit_nix.image import blobs

    report = verifier.Report()
    named = lock_path or context.get_parameter_source("flake") is not click.core.ParameterSource.DEFAULT
    optional = image and not rebuild and not named
    found = materials.read_if_there(flake, lock_path) if optional else materials.read(flake, lock_path)
    if found and rebuild:
        report.same(f"{reproduce.build_again(found, found.system(system))} derivations built again")
    if image:
        architecture = materials.architecture(found, system)
        with (
            Client() as client,
            blobs.opened(image, client, insecure=insecure, architecture=architecture) as opened,
        ):
            verifier.image(opened, found, verifier.wanted(opened.image, found, system, report), report)
    elif found:
        verifier.in_store(found, found.system(system), report)
    for line in report.checked:
        console.say(f"ok: {line}")
    if report.differences:
        raise AikitError(*report.differences)
    console.say(f"nothing differs: {len(report.checked)} checks")


@click.command()
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.OUTPUT
def sbom(flake: Path, lock_path: Path | None, system: str | None, output: Path | None) -> None:
    """Write the image's bill of materials, as CycloneDX 1.6.

    From the flake and the lock, without building.
    """
    from aikit_nix.attest import sbom as bill
    from aikit_nix.flakes import materials

    found = materials.read(flake, lock_path)
    options.write(bill.cyclonedx(found, found.system(system)), output)


@click.command()
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.OUTPUT
def provenance(flake: Path, lock_path: Path | None, system: str | None, output: Path | None) -> None:
    """Write the image's SLSA provenance: every input by its digest.

    From the flake and the lock, without building. The predicate alone, as `cosign attest --type slsaprovenance1
    --predicate` takes it.
    """
    from aikit_nix.attest import provenance as slsa
    from aikit_nix.flakes import materials
    from aikit_nix.nix import command as nix

    found = materials.read(flake, lock_path)
    content = slsa.predicate(found, found.system(system), nix.version())
    options.write(slsa.encode(content), output)


@click.command()
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.OUTPUT
@click.option("--compare", type=options.FILE, help="Another builder's statement; exit with 1 where it differs.")
def reproduce(
    flake: Path, lock_path: Path | None, system: str | None, output: Path | None, compare: Path | None
) -> None:
    """Build the image and write what went in and what came out.

    As JSON; the models' bytes are not needed. A second builder compares: the digests of all inputs, of each layer, of
    the manifest.
    """
    from aikit_nix.attest import provenance as slsa
    from aikit_nix.attest import reproduce as builders
    from aikit_nix.base.errors import AikitError, Diagnostic, Severity
    from aikit_nix.flakes import materials

    theirs = builders.read(compare) if compare else None
    found = materials.read(flake, lock_path)
    of = found.system(system)
    ours = builders.statement(found, of, builders.built(found, of))
    if theirs is None or output:
        options.write(slsa.encode(ours), output)
    if theirs is None:
        return
    if differs := [
        Diagnostic(Severity.ERROR, "differs", f"{each} ({compare})") for each in builders.differences(ours, theirs)
    ]:
        raise AikitError(*differs)
    console.say(f"the same image as {compare}'s: {ours['image']['manifest']}")


@click.command()
@click.argument("reference")
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.INSECURE
def attest(reference: str, flake: Path, lock_path: Path | None, system: str | None, insecure: bool | None) -> None:
    """Push bill of materials and provenance beside an image.

    They become OCI referrers of the pushed image. REFERENCE is REGISTRY/NAME:TAG, and must be the image that the flake
    builds.
    """
    from aikit_nix.attest import referrers
    from aikit_nix.http.client import Client
    from aikit_nix.registry import artifact

    with Client() as client:
        found = referrers.subject(reference, flake, lock_path, system, client, insecure=insecure)
        for digest in artifact.attach(found.repository, found.manifest, referrers.referrers(found)):
            console.show(f"{found.repository}@{digest}")


@click.command()
@click.argument("reference")
@click.option("--key", required=True, metavar="KEY", help="cosign's private key: a file or a KMS address.")
@options.LOG
@options.FLAKE
@options.LOCK
@options.SYSTEM
@options.INSECURE
def sign(
    reference: str, key: str, log: bool, flake: Path, lock_path: Path | None, system: str | None, insecure: bool | None
) -> None:
    """Sign a pushed image and what was attested of it.

    That is the image, its bill of materials and its provenance, with cosign. REFERENCE is REGISTRY/NAME:TAG, and must
    be the image that the flake builds. COSIGN_PASSWORD has the key's password.
    """
    from aikit_nix.attest import referrers
    from aikit_nix.attest import sign as signer
    from aikit_nix.http.client import Client

    with Client() as client:
        found = referrers.subject(reference, flake, lock_path, system, client, insecure=insecure)
    signer.image(found.name, key, found.bill(), found.predicate(), log=log, insecure=insecure)
    console.say(f"signed {found.name}")


@click.command("sign-models")
@click.option("--key", required=True, metavar="KEY", help="cosign's private key: a file or a KMS address.")
@options.LOG
@options.FLAKE
@options.LOCK
@click.option(
    "-o", "--output", type=options.FILE, default=Path("model.sig"), show_default=True, help="The signature to write."
)
def sign_models(key: str, log: bool, flake: Path, lock_path: Path | None, output: Path) -> None:
    """Sign the image's models by the digests of the lock.

    As OpenSSF Model Signing does; no model is read. The image's folder /models is verified by
    `model_signing verify key models --allow_symlinks --signature model.sig --public_key cosign.pub`.
    """
    from aikit_nix.attest import sign as signer
    from aikit_nix.flakes import materials

    signer.models(materials.read(flake, lock_path), key, output, log=log)
    console.say(f"wrote {output}")
