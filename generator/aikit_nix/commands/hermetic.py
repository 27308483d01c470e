"""What builds without a network: `aikit-nix bundle` and `unbundle`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from aikit_nix.base import console
from aikit_nix.commands import options


@click.command()
@click.argument("folder", metavar="DIR", type=options.FOLDER)
@options.of_image
@click.option(
    "--built", is_flag=True, help="Build the image first, and put in what was built, except for copies of models."
)
@click.option("--to", "url", metavar="URL", help="Also copy it to another cache or store: s3://…, ssh://…, file://….")
@click.option("--key", type=options.FILE, help="Sign it with this key (`nix key generate-secret`).")
def bundle(
    folder: Path,
    flake: Path,
    lock_path: Path | None,
    system: str | None,
    built: bool,
    url: str | None,
    key: Path | None,
) -> None:
    """Write all that a build needs into DIR, a Nix binary cache.

    That is the flake with its inputs, the models, Debian's packages or the sources of programs; what DIR has already is
    not copied again. bundle.json there says what is what, with hashes and licences.
    """
    from aikit_nix.base import redact
    from aikit_nix.flakes import bundle as bundles
    from aikit_nix.flakes import materials

    if password := re.match(r"[^/?#]*//[^/?#@:]*:([^/?#]*)@", url or ""):
        redact.hide(password[1])  # Nix says where it copies to, and -v how it was asked
    found = materials.read(flake, lock_path)
    index, copied = bundles.write(found, found.system(system), folder, built=built, key=key)
    if url:
        bundles.copy(index.paths, url, key=key)
        console.say(f"copied to {redact.blank(url)}")
    console.say(*bundles.table(index.paths))
    console.say(
        f"wrote {folder}: all that {index.image} for {index.system} is built of, {console.size(copied)} of it new"
    )
    console.say(f"next, on a machine without network: aikit-nix unbundle {shlex.quote(str(folder))} --flake flake")


@click.command()
@click.argument("folder", metavar="DIR", type=options.FOLDER)
@options.NEW_FLAKE
@click.option("--public-key", metavar="NAME:KEY", help="The bundle must be signed with this key.")
def unbundle(folder: Path, flake: Path | None, public_key: str | None) -> None:
    """Bring what `bundle` wrote into DIR into the Nix store.

    No network is used. Of a signed bundle the signature is checked before anything is written. Nix checks every hash:
    models, packages and sources are known by their own and need no signature; what was built, and the flake, do. What is
    damaged or missing is named, and the rest can be brought again.
    """
    from aikit_nix.flakes import unbundle as bundles
    from aikit_nix.nix import command as nix

    found = bundles.read(folder, public_key)
    content = bundles.content(found)
    signed = f"signed by {found.signer}" if found.signer else "no key that is trusted here signed it"
    count = bundles.bring(found, content, public_key)
    paths = len(found.index.paths)
    console.say(f"all {paths} store paths of {found.index.image} are in the Nix store, {count} of them new ({signed})")
    if flake:
        bundles.write_flake(content, flake)
        console.say(f"wrote {flake}", f"next: {nix.build_command(flake, '--offline')}")


@click.command()
@click.argument("vendor", type=click.Choice(["github", "gitlab"]))
@options.AIKITFILE
@options.LOCK
@options.FLAKE
@options.OUTPUT
@click.option(
    "--install",
    metavar="WHAT",
    required=True,
    help="What pipx installs: aikit-nix as a wheel, or git+https://…@COMMIT.",
)
def ci(vendor: str, aikitfile: Path, lock_path: Path | None, flake: Path, output: Path | None, install: str) -> None:
    """Write a pipeline that is yours from then on.

    It is for the repository whose top is the current folder. It checks lock and flake, brings what the build needs (as
    a bundle, which it keeps), builds with the network off, builds again on a second runner and compares, pushes,
    verifies and signs.
    """
    from aikit_nix.flakes import ci as pipelines
    from aikit_nix.flakes import materials

    options.write(pipelines.pipeline(vendor, install, aikitfile, lock_path, materials.read(flake, lock_path)), output)
