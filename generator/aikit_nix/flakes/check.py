"""`aikit-nix check`: everything that can be found without building, the model files beside the aikitfile included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic, Severity
from aikit_nix.flakes import ages, plan
from aikit_nix.models import lock
from aikit_nix.models import project as projects
from aikit_nix.sources import MODELS


def check(
    path: Path, escapes: Escapes, lock_path: Path | None = None, options: plan.Options | None = None
) -> tuple[Diagnostic, ...]:
    """Every finding about one aikitfile and its lock, errors included. What `gen` refuses with these options is among them."""
    try:
        project = projects.read(path, escapes, lock_path)
    except AikitError as failed:
        return failed.diagnostics
    return (
        *project.findings,
        *_combinations(project, options or plan.Options()),
        *_pins(project.aikitfile),
        *_files(project),
        *_contexts(project),
    )


def _combinations(project: projects.Project, options: plan.Options) -> tuple[Diagnostic, ...]:
    """What `gen` would refuse, or warn of."""
    try:
        planned, warnings = plan.make(projects.spread(project), options, projects.facts(project))
        return (*warnings, *ages.notes(planned))
    except AikitError as failed:
        return failed.diagnostics


def _pins(parsed: Aikitfile) -> tuple[Diagnostic, ...]:
    missing = lock.unpinned(model for model in parsed.models if not model.is_local)
    return missing.diagnostics if missing else ()


def _files(project: projects.Project) -> Iterator[Diagnostic]:
    local = [model for model in project.aikitfile.models if model.is_local]
    yield from projects.links(local, project.folder)
    for model in local:
        doubts: list[Diagnostic] = []
        as_is = bool(model.pin and model.pin.as_is)
        try:
            for path, file in projects.local_files(model, project.folder):
                projects.look(model, path, file, as_is=as_is, report=doubts.extend)
        except AikitError as failed:
            yield from failed.diagnostics
        yield from doubts


def _contexts(project: projects.Project) -> Iterator[Diagnostic]:
    """Where the config gives a model more context than it was trained for."""
    from aikit_nix.aikitfile import localai_config

    known = projects.facts(project)
    config = localai_config.read(project.aikitfile)
    for entry in config.entries if config and not config.errors else ():
        name, size = entry.words("parameters.model"), entry.values.get("context_size")
        facts = known.get(f"{MODELS}/{name}")
        if size and facts and facts.context_length and size.integer() > facts.context_length:
            what = f"{facts.context_length} tokens that {name.rpartition('/')[2]} was trained for"
            message = f"context_size {size.integer()} is more than the {what}"
            yield Diagnostic(Severity.WARNING, "context-size", message, size.at)
