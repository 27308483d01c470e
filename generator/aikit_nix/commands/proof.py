"""What shows where an image comes from and that it is what it should be: `verify`, `reproduce`, `sbom`, `provenance`,
`attest`, `sign`.
"""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.base import console
from aikit_nix.commands import options


@click.command()
@click.argument("image", required=False)
@options.of_image
@options.INSECURE
@click.option("--rebuild", is_flag=True, help="Build everything again, and compare.")
@click.option(
    "--policy",
    "policy_path",
    type=options.FILE,
    help="What has to be true of the image, in TOML: signers, builders, licences, runtimes.",
)
@click.option(
    "--evidence",
    type=options.FILE,
    multiple=True,
    help="A signed statement for the policy, beside those in the registry; may be repeated.",
)
@click.option("-o", "--output", type=options.FILE, help="Write the verdict here, as an in-toto statement (SLSA VSA).")
@options.STATEMENT_KEY
@options.LOG
@click.pass_context
def verify(
    context: click.Context,
    image: str | None,
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    insecure: bool | None,
    rebuild: bool,
    policy_path: Path | None,
    evidence: tuple[Path, ...],
    output: Path | None,
    key: str | None,
    log: bool,
) -> None:
    """Check that an IMAGE is the one that follows from flake and lock.

    Exits with 1 where anything differs, or could not be compared. IMAGE is an OCI layout (a folder), a docker-archive, or
    REGISTRY/NAME:TAG. The manifest that the flake gives is built, without the models' bytes, and IMAGE has to be that
    one; every blob is read. Where no flake is here, signed rebuilds that a --policy asks for take its place. Without IMAGE,
    the models and packages in this machine's Nix store are checked.
    """
    from aikit_nix.attest import policy as policies
    from aikit_nix.attest import reproduce
    from aikit_nix.attest import verify as verifier
    from aikit_nix.base.errors import AikitError
    from aikit_nix.flakes import materials
    from aikit_nix.http.client import Client
    from aikit_nix.image import blobs

    options.check_signing(output, key, log=log)
    if not image and (policy_path or output):
        raise click.UsageError("--policy and --output are about an IMAGE: name one")
    if evidence and not policy_path:
        raise click.UsageError("--evidence is for a --policy: name one")
    policy = policies.read(policy_path) if policy_path else None
    report = verifier.Report()
    named = lock_path or context.get_parameter_source("flake") is not click.core.ParameterSource.DEFAULT
    optional = image and not rebuild and not named
    found = materials.read_if_there(flake, lock_path) if optional else materials.read(flake, lock_path)
    for each in found.disagreements if found else ():
        report.differs(each)
    if found and rebuild:
        report.same(f"{reproduce.build_again(found, found.system(system))} derivations built again")
    if image:
        architecture = materials.architecture(found, system)
        with Client() as client, blobs.opened(image, client, insecure=insecure, architecture=architecture) as opened:
            summary = verifier.judge(image, opened, found, system, policy, evidence, report)
        if output:
            options.write_statement(summary, output, key, log=log)
    elif found:
        verifier.in_store(found, found.system(system), report)
    for line in report.checked:
        console.say(f"ok: {line}")
    if report.differences:
        raise AikitError(*report.differences)
    console.say(f"nothing differs: {len(report.checked)} checks")


@click.command()
@options.of_image
@options.OUTPUT
def sbom(flake: Path, lock_path: Path | None, system: str | None, output: Path | None) -> None:
    """Write the image's bill of materials, as CycloneDX 1.7.

    From the flake and the lock, without building; licences and maintainers of Debian's packages as far as these are in
    this machine's Nix store (`aikit-nix fetch` brings them).
    """
    from aikit_nix.attest import sbom as bill
    from aikit_nix.flakes import materials

    found = materials.read(flake, lock_path)
    options.write(bill.cyclonedx(found, found.system(system)), output)


@click.command()
@options.of_image
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
@options.of_image
@options.OUTPUT
@options.claims
@options.STATEMENT_KEY
@options.LOG
@click.option("--compare", type=options.FILE, help="Another builder's statement; exit with 1 where it differs.")
def reproduce(
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    output: Path | None,
    witnesses: tuple[tuple[Path, Path], ...],
    unseen: bool,
    key: str | None,
    log: bool,
    compare: Path | None,
) -> None:
    """Build the image and write what went in and what came out.

    As an in-toto statement, signed with --key; the models' bytes are not needed. A second builder compares: the digests
    of all inputs, of each layer, of the manifest.
    """
    from aikit_nix.attest import provenance as slsa
    from aikit_nix.attest import reproduce as builders
    from aikit_nix.attest import verdict
    from aikit_nix.base.errors import AikitError, Diagnostic, Severity
    from aikit_nix.flakes import materials

    options.check_signing(output, key, log=log)
    theirs = builders.read(compare).predicate if compare else None
    found = builders.compared(materials.read(flake, lock_path), witnesses, unseen=unseen)
    of = found.system(system)
    image = builders.built(found, of)
    found = found.compared(unseen=True)  # the build may have brought what it derived
    ours = builders.statement(found, of, image)
    content = slsa.statement(verdict.REBUILD, ours, found.reference(of), image.digest or "")
    if output:
        options.write_statement(content, output, key, log=log)
    elif theirs is None:
        options.write(slsa.encode(content), None)
    if theirs is None:
        return
    if differs := [
        Diagnostic(Severity.ERROR, "differs", f"{each} ({compare})") for each in builders.differences(ours, theirs)
    ]:
        raise AikitError(*differs)
    console.say(f"the same image as {compare}'s: {ours['image']['manifest']}")


@click.command()
@click.argument("reference")
@options.of_image
@options.INSECURE
@options.claims
@click.option(
    "--statement",
    "statements",
    type=options.FILE,
    multiple=True,
    help="Also push a statement of `verify` or `reproduce`; may be repeated.",
)
def attest(
    reference: str,
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    insecure: bool | None,
    witnesses: tuple[tuple[Path, Path], ...],
    unseen: bool,
    statements: tuple[Path, ...],
) -> None:
    """Push bill of materials and provenance beside an image.

    They become OCI referrers of the pushed image. REFERENCE is REGISTRY/NAME:TAG, and must be the image that the flake
    builds.
    """
    from aikit_nix.attest import referrers, reproduce
    from aikit_nix.flakes import materials
    from aikit_nix.http.client import Client
    from aikit_nix.registry import artifact

    found = reproduce.compared(materials.read(flake, lock_path), witnesses, unseen=unseen)
    with Client() as client:
        subject = referrers.subject(reference, found, found.system(system), client, insecure=insecure)
        said = [*referrers.referrers(subject), *(referrers.given(file, subject.manifest.digest) for file in statements)]
        for digest in artifact.attach(subject.repository, subject.manifest, said):
            console.show(f"{subject.repository}@{digest}")


@click.command()
@click.argument("reference", required=False)
@click.option("--key", required=True, metavar="KEY", help="cosign's private key: a file or a KMS address.")
@click.option(
    "--models",
    type=options.FILE,
    metavar="FILE",
    help="Sign the image's models instead, by the digests of the lock, into FILE (model.sig).",
)
@options.LOG
@options.of_image
@options.INSECURE
@options.claims
def sign(
    reference: str | None,
    key: str,
    models: Path | None,
    log: bool,
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    insecure: bool | None,
    witnesses: tuple[tuple[Path, Path], ...],
    unseen: bool,
) -> None:
    """Sign a pushed image and what was attested of it.

    That is the image, its bill of materials and its provenance, with cosign. REFERENCE is REGISTRY/NAME:TAG, and must
    be the image that the flake builds. COSIGN_PASSWORD has the key's password.

    With --models it is what OpenSSF Model Signing signs, and no model is read. The image's folder /models is verified by
    `model_signing verify key models --allow_symlinks --signature model.sig --public_key cosign.pub`.
    """
    from aikit_nix.attest import referrers, reproduce
    from aikit_nix.attest import sign as signer
    from aikit_nix.flakes import materials
    from aikit_nix.http.client import Client

    if (reference is None) == (models is None):
        raise click.UsageError("sign what: REFERENCE, or --models FILE")
    if models and (witnesses or unseen or insecure is not None):
        raise click.UsageError("--models signs digests of files: no registry is asked, and no claim of a layer is made")
    found = materials.read(flake, lock_path)
    if models:
        signer.models(found, key, models, log=log)
        console.say(f"wrote {models}")
    elif reference:
        found = reproduce.compared(found, witnesses, unseen=unseen)
        with Client() as client:
            subject = referrers.subject(reference, found, found.system(system), client, insecure=insecure)
        signer.image(subject.name, key, subject.bill(), subject.predicate(), log=log, insecure=insecure)
        console.say(f"signed {subject.name}")
