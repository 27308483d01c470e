"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from aikit_nix.aikitfile import schema
from aikit_nix.base import data

FILE = click.Path(path_type=Path, dir_okay=False)
AIKITFILE = click.argument("aikitfile", type=FILE, default=data.AIKITFILE)
FILES = click.argument("files", metavar="[FILE]...", type=FILE, nargs=-1)
LOCK = click.option("--lock", "lock_path", type=FILE, help="The lock.  [default: aikit.lock beside the aikitfile]")
ESCAPES = click.option(
    "--escapes",
    type=click.Choice(["auto", "shell", "verbatim"]),
    help="How AIKit's shell escapes in templates and config are read.  [default: auto]",
)
RUNTIME = click.option(
    "--runtime",
    type=click.Choice([*schema.RUNTIMES, "cpu"]),
    help="What to compile for.  [default: the file's runtime, else avx]",
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["localai", "llama-server"]),
    help="The server in the image.  [default: localai on nixpkgs, llama-server on debian]",
)
_PACKAGES = partial(click.option, "--packages", type=click.Choice(["nixpkgs", "debian"]))
PACKAGES = _PACKAGES(help="Where the programs come from.  [default: nixpkgs]")
FIRST_PACKAGES = _PACKAGES(help="Where the programs come from; kept for `gen` and `build`.  [default: debian]")
DROP = click.option(
    "--drop-settings",
    is_flag=True,
    default=None,
    help="Leave out, with a warning, what of the config changes the answers and only LocalAI does.",
)
FOLDER = click.Path(path_type=Path, file_okay=False)
# What is chosen for a flake and kept in it, by the names of flakes.choices.Choices; the first are how a file is read.
_READING = (RUNTIME, ENGINE, PACKAGES, ESCAPES, DROP)
_CHOICES = (
    *_READING,
    click.option(
        "--cuda-capability",
        "cuda_capabilities",
        multiple=True,
        callback=lambda _, __, given: given or None,
        metavar="X.Y",
        help="Compile for this NVIDIA compute capability only; may be repeated.  [default: nixpkgs' list]",
    ),
    click.option("--name", help="Name of the image.  [default: the first model's name]"),
    click.option("--tag", help="Tag of the image.  [default: the runtime]"),
    click.option("--nixpkgs", metavar="REF", help="Another nixpkgs: a revision (40 hex digits) or a flake reference."),
    click.option(
        "--input",
        metavar="REF",
        help="Take the Nix library from this flake reference of aikit-nix instead of writing a copy of it.",
    ),
)


class _Flake(click.Option):
    """`--flake`; what it was called before is taken, too, and not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy(self)
        shown.opts = ["--flake"]
        return super(_Flake, shown).get_help_record(ctx)


FLAKE = click.option(
    "--flake", type=FOLDER, default=data.FLAKE, show_default=True, metavar="DIR", help="The flake's folder."
)
_WRITTEN = partial(click.option, "--flake", "-o", "--output", cls=_Flake, type=FOLDER, metavar="DIR")
INTO = _WRITTEN(default=data.FLAKE, show_default=True, help="Folder to write the flake to.")
NEW_FLAKE = _WRITTEN(help="Also write the flake, into this new folder.")
DEBIAN_LOCK = click.option(
    "--debian-lock",
    type=click.Path(path_type=Path),
    envvar="AIKIT_DEBIAN_LOCK",
    help="Another lock of the Debian packages (see `aikit-nix debian-lock`).",
)


IMAGE = click.option(
    "--flake",
    "--from",
    cls=_Flake,
    default=str(data.FLAKE),
    show_default=True,
    metavar="DIR|REF|LAYOUT",
    help="The flake's folder, a flake reference, or an OCI layout (which no container engine takes).",
)
SYSTEM = click.option(
    "--system",
    type=click.Choice(["x86_64-linux", "aarch64-linux"]),
    help="Whose image is meant.  [default: this machine's]",
)
OUTPUT = click.option("-o", "--output", type=FILE, help="File to write.  [default: standard output]")
LOG = click.option("--log", is_flag=True, help="Also tell the public transparency log (Rekor).")
INSECURE = click.option(
    "--insecure/--secure",
    default=None,
    help="Plain HTTP with the registry, or verified TLS only.  [default: verified TLS; for a registry on this machine any TLS, "
    "else HTTP]",
)

STATEMENT_KEY = click.option(
    "--key", metavar="KEY", help="Sign what is written with cosign: a private key's file or a KMS address."
)
_FORGET = click.option("--forget", is_flag=True, help="Keep nothing of what was chosen for the flake that is there.")
_FORCE = click.option(
    "--force", is_flag=True, help="Rename what aikit-nix did not write (to flake.nix~), and write anew."
)

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _together(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Of all that reads an aikitfile or writes its flake (the choices come as keywords), and of all about a flake's image.
reads = _together(LOCK, *_READING)
of_image = _together(FLAKE, LOCK, SYSTEM)
# Of all that says something of models
claims = _together(
    click.option(
        "--witness",
        "witnesses",
        type=(FILE, FILE),
        multiple=True,
        metavar="STATEMENT PUBKEY",
        help="What `reproduce --key` wrote of this flake where the models were, and its public key; may be repeated.",
    ),
    click.option(
        "--unseen",
        is_flag=True,
        help="Go on where the bytes of a model were never on this machine, and write that of it.",
    ),
)


def generates(command: Callable[..., None]) -> Callable[..., None]:
    """What is asked for where a flake is written: the command gets a flakes.generate.Request of it."""

    @wraps(command)
    def requested(
        aikitfile: Path,
        lock_path: Path | None,
        flake: Path,
        debian_lock: Path | None,
        forget: bool,
        force: bool,
        **given: Any,
    ) -> None:
        from aikit_nix.flakes.choices import Choices
        from aikit_nix.flakes.generate import Request

        chosen = Choices(**{name: given.pop(name) for name in Choices.__struct_fields__ if name in given})
        command(Request(aikitfile, flake, chosen, lock_path, debian_lock, forget, force), **given)

    return _together(AIKITFILE, LOCK, INTO, *_CHOICES, DEBIAN_LOCK, _FORGET, _FORCE)(requested)


def check_signing(output: Path | None, key: str | None, *, log: bool) -> None:
    """Raises UsageError where an option would do nothing."""
    if key and not output:
        raise click.UsageError("--key signs what is written: name the file with --output")
    if log and not key:
        raise click.UsageError("--log is about a signature: name the --key")


def write_statement(content: dict[str, Any], output: Path, key: str | None, *, log: bool) -> None:
    """Write an in-toto statement to a file, signed where there is a key. Raises AikitError."""
    from aikit_nix.attest import provenance, sign
    from aikit_nix.base import console, files

    data = sign.statement(content, key, log=log) if key else provenance.encode(content).encode()
    files.write_atomic(output, data)
    console.say(f"wrote {output}")


def write(text: str, output: Path | None) -> None:
    """Write what a command made to a file or to standard output. Raises AikitError."""
    from aikit_nix.base import console, files

    if output is None:
        console.write(text)
    else:
        files.write_atomic(output, text.encode())
        console.say(f"wrote {output}")
