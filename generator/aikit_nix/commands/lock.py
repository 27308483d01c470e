"""`aikit-nix lock` and `fetch`: what is known of the models' bytes, and the bytes."""

from __future__ import annotations

from pathlib import Path

import click

from aikit_nix.base import console
from aikit_nix.commands import options


@click.command()
@options.AIKITFILE
@options.LOCK
@click.option("--check", is_flag=True, help="Only say whether the lock covers the file; no network. For CI.")
@click.option("--models", is_flag=True, help="With --check: also compare what it claims with the models that are here.")
@click.option(
    "--update",
    is_flag=False,
    flag_value="*",
    multiple=True,
    metavar="[NAME]",
    help="Pin again what is pinned: all models, or those named; may be repeated.",
)
@click.option(
    "--as-is",
    multiple=True,
    metavar="NAME",
    help="Pin this model though its file is not what its name says (no GGUF, or half of one); may be repeated.",
)
@click.option("--offline", is_flag=True, help="Ask nobody: pin local files, and fail where anything else is new.")
def lock(
    aikitfile: Path,
    lock_path: Path | None,
    check: bool,
    models: bool,
    update: tuple[str, ...],
    as_is: tuple[str, ...],
    offline: bool,
) -> None:
    """Pin the models of an AIKITFILE in aikit.lock.

    They are pinned by what their origins say of them. Downloads nothing where the origin knows the SHA-256 (Hugging
    Face, registries); else the file, once, into the Nix store. Commit the lock: `gen` and `nix build` use what it says,
    and nothing else.
    """
    from aikit_nix.base.errors import AikitError, error
    from aikit_nix.models import lock as locks
    from aikit_nix.models import locking
    from aikit_nix.models import project as projects

    if models and not check:
        raise click.UsageError("--models is part of --check")
    path = lock_path or locks.beside(aikitfile)
    written = projects.read_as_written(aikitfile)
    old = locks.read(path)
    if check:
        if found := locking.missing(written, old):
            raise AikitError(*found)
        if models:
            here = projects.read(aikitfile, lock_path=lock_path)
            projects.pin(here)
            unseen = projects.check_claims(here)
            count = len(here.lock.files()) if here.lock else 0
            console.say(
                f"{count - len(unseen)} of {count} file{'s' * (count != 1)} seen here, and what {path} claims of them is so"
            )
        console.say(f"{path} covers {aikitfile}: {_models(len(written.models))}")
        return
    names = {model.name.value for model in written.models}
    if unknown := sorted({*update, *as_is} - names - {"*"}):
        option = "--update" if unknown[0] in update else "--as-is"
        raise error(
            f"{option} {unknown[0]}: {aikitfile} has no model of that name (it has {', '.join(sorted(names)[:8])})"
        )
    console.report(projects.links(written.models, aikitfile.parent))
    new, changes = locking.make(
        written,
        aikitfile.parent,
        old,
        str(path),
        update=lambda name: "*" in update or name in update,
        as_is=as_is,
        offline=offline,
    )
    for change in changes:
        for line in str(change).splitlines():
            console.say(line)
    if old is None or changes:
        locking.write(new)
        console.say(f"wrote {path}: {_models(len(new.entries))}")
    else:
        locking.forget(new)
        console.say(f"{path} is up to date: {_models(len(new.entries))}")


@click.command()
@options.AIKITFILE
@options.LOCK
@options.FLAKE
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
def fetch(aikitfile: Path, lock_path: Path | None, flake: Path, jobs: int) -> None:
    """Bring all that the image is made of into the Nix store.

    The models, under the very paths that `nix build` looks for; and after `aikit-nix gen` what the flake downloads:
    sources, or Debian's packages. Interrupted downloads go on where they were. What the lock did not know yet of the
    models' bytes is added to it.
    """
    from aikit_nix.flakes import generate, inputs
    from aikit_nix.flakes.write import PLAN
    from aikit_nix.models import project as projects

    project = projects.read(aikitfile, lock_path=lock_path)
    console.report(project.findings)
    console.report(projects.links(project.aikitfile.models, project.folder))
    models, count = generate.bring_models(project, flake, jobs)
    console.say(f"{_models(models)} in the Nix store, {count} of them new")
    if not (flake / PLAN).is_file():
        console.say("next: aikit-nix gen, then aikit-nix fetch again for what the flake downloads")
        return
    count = inputs.bring(flake)
    console.say(f"what the flake in {flake.resolve()} downloads is in the Nix store, {count} files of it new")


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"
