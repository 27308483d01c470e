"""The commands about the aikitfile itself: check, explain, fmt, init, schema."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aikit_nix.aikitfile import schema as language
from aikit_nix.base import console, data
from aikit_nix.base.console import report, say
from aikit_nix.commands import options

if TYPE_CHECKING:
    from aikit_nix.flakes.choices import Choices


@click.command()
@options.FILES
@options.reads
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="text for people (stderr), json for programs, sarif for code scanning (both stdout).",
)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
def check(
    files: tuple[Path, ...],
    lock_path: Path | None,
    style: str,
    strict: bool,
    **choices: Any,
) -> None:
    """Find mistakes in aikitfiles, without building anything.

    They are all that `gen` refuses with the same options.
    Without a FILE, ./aikitfile.yaml. The exit status is 1 when there are errors.
    """
    from aikit_nix.base import diagnostics
    from aikit_nix.base.errors import AikitError, Diagnostic, Severity
    from aikit_nix.flakes import check as checker

    paths = files or (data.AIKITFILE,)
    found: list[Diagnostic] = []
    for path in paths:
        try:
            chosen = _chosen(path, choices)
            found += checker.check(path, chosen.read_as, lock_path, chosen.options())
        except AikitError as failed:
            found += failed.diagnostics
    errors = sum(finding.severity is Severity.ERROR for finding in found)
    warnings = sum(finding.severity is Severity.WARNING for finding in found)
    if style == "text":
        report(found)
        files_word = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        counts = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
        say(f"{files_word}: {', '.join(counts) or 'no mistakes found'}")
    else:
        console.write(diagnostics.json(found) if style == "json" else diagnostics.sarif(found))
    if errors or (strict and warnings):
        sys.exit(1)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the aikitfile, for editors.

    In VS Code and other editors with the YAML language server, begin the file with
    `# yaml-language-server: $schema=PATH`.
    """
    console.write(language.as_json())


@click.command()
@options.AIKITFILE
@options.reads
def explain(aikitfile: Path, lock_path: Path | None, **choices: Any) -> None:
    """Say what each part of an AIKITFILE becomes in the image."""
    from aikit_nix.aikitfile.escapes import Escapes
    from aikit_nix.flakes import explain as explainer
    from aikit_nix.models import project as projects

    chosen = _chosen(aikitfile, choices)
    project = projects.read(aikitfile, chosen.read_as, lock_path)
    written = projects.read(aikitfile, Escapes.VERBATIM, lock_path)
    report(project.findings)
    console.show(*explainer.explain(project, written.aikitfile, chosen.options()))


def _chosen(aikitfile: Path, given: Mapping[str, Any]) -> Choices:
    """What is chosen here, and else what was chosen for the flake beside the aikitfile."""
    from aikit_nix.flakes import choices

    return choices.Choices(**given).over(choices.read(aikitfile.parent / data.FLAKE))


@click.command()
@options.FILES
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 where something would change.")
@click.option("--diff", is_flag=True, help="Change nothing; print what would change.")
@click.option(
    "--unescape", is_flag=True, help="Also write templates and config as they are read, without AIKit's shell escapes."
)
def fmt(files: tuple[Path, ...], only_check: bool, diff: bool, unescape: bool) -> None:
    """Format aikitfiles in place; comments and the meaning stay.

    Without a FILE, ./aikitfile.yaml.
    """
    from aikit_nix.aikitfile import fmt as formatter

    changed = 0
    for path in files or (data.AIKITFILE,):
        change = formatter.plan(path, unescape=unescape)
        if change is None:
            continue
        changed += 1
        if diff:
            console.write(change.diff())
        elif only_check:
            say(f"{path} would change: run `aikit-nix fmt {shlex.quote(str(path))}`")
        else:
            change.write()
            say(f"formatted {path}")
    if changed and (only_check or diff):
        sys.exit(1)


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="URL|REPO|FILE",
    help="An https URL of a GGUF, NAMESPACE/REPO[:PATTERN] on Hugging Face, ollama://NAME[:TAG], oci://…, or a file.",
)
@click.option("--name", help="Name of the model.  [default: what the GGUF says]")
@click.option(
    "--runtime", type=click.Choice(language.RUNTIMES), help="What the image is for.  [default: the best that runs here]"
)
@options.FIRST_PACKAGES
@click.option(
    "--sha256", metavar="HEX", help="SHA-256 of the file behind a URL, which then is not downloaded to compute it."
)
@click.option(
    "-o", "--output", type=options.FILE, default=data.AIKITFILE, show_default=True, help="The aikitfile to write."
)
@click.option("--force", is_flag=True, help="Overwrite the aikitfile.")
def init(
    models: tuple[str, ...],
    name: str | None,
    runtime: str | None,
    packages: str | None,
    sha256: str | None,
    output: Path,
    force: bool,
) -> None:
    """Write an aikitfile for a model, and its lock.

    Asks for what is not given, and reads the head of the GGUF: its name, context size and chat template. A file behind
    a URL is downloaded into the Nix store, unless it is on Hugging Face or its --sha256 is given. HF_ENDPOINT names
    another Hugging Face.
    """
    from aikit_nix.base import files, targets
    from aikit_nix.base.errors import error
    from aikit_nix.flakes import init as initialiser
    from aikit_nix.http.client import Client
    from aikit_nix.models import lock as locks
    from aikit_nix.models import locking, project

    if len(models) > 1 and (name or sha256):
        raise error("--name and --sha256 are for one --model: leave them out, and write them into the aikitfile")
    initialiser.refuse_overwriting(output, force=force)
    if not models:
        models, runtime, packages = initialiser.ask(runtime, packages)
    runtime = runtime or targets.best_runtime()
    with Client() as client:
        found = [found for model in models for found in initialiser.find(model, output.parent, client, sha256)]
    text = initialiser.render(found, name, runtime).encode()
    lock = locks.beside(output)
    pins, _ = locking.make(project.parse(text, str(output))[0], output.parent, None, str(lock))
    files.write_atomic(output, text)
    locking.write(pins)
    say(f"wrote {output} and {lock}: {', '.join(model.file for model in found)}")
    origin = packages or "debian"
    words = [] if initialiser.remember(origin, data.FLAKE) else ["--packages", origin]
    words += [] if output == data.AIKITFILE else [shlex.quote(str(output))]
    say(f"next: {' '.join(['aikit-nix build', *words])}")
    if not packages:
        say("  (programs from Debian; --packages nixpkgs compiles LocalAI instead, in minutes; the choice is kept)")
