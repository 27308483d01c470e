"""From an aikitfile to a flake that is written: what `gen` does, and `build` before it builds."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from aikit_nix.aikitfile.types import Model
from aikit_nix.base import console, data, targets
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.flakes import ages, choices, costs, folder, plan
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.folder import Written
from aikit_nix.flakes.plan import Packages, Plan, SourceFile
from aikit_nix.flakes.write import Files
from aikit_nix.models import fetch, locking
from aikit_nix.models import project as projects
from aikit_nix.models.project import Project
from aikit_nix.nix import command as nix

Report = Callable[[tuple[Diagnostic, ...]], object]


@dataclass(frozen=True)
class Request:
    """The flake that is asked for: of which aikitfile and locks, as it is chosen, in which folder.

    `forget` is whether earlier choices do not count, `force` whether what others wrote is set aside.
    """

    aikitfile: Path
    output: Path
    chosen: Choices
    lock: Path | None = None
    debian_lock: Path | None = None
    forget: bool = False
    force: bool = False

    @property
    def fetch(self) -> str:
        """The command that brings what the flake downloads, as this user."""
        words = ["aikit-nix", "fetch", *([] if self.aikitfile == data.AIKITFILE else [str(self.aikitfile)])]
        words += ["--lock", str(self.lock)] if self.lock else []
        return shlex.join([*words, *([] if self.output == data.FLAKE else ["--flake", str(self.output)])])


@dataclass(frozen=True)
class Generated:
    """A flake that was written; `kept` are earlier choices that were kept to.

    `missing` are the bytes of Debian's packages that a build downloads.
    """

    request: Request
    plan: Plan
    choices: Choices
    kept: Choices
    written: Written
    added: tuple[Path, ...]
    missing: int
    elsewhere: bool

    def lines(self) -> Iterator[str]:
        """What a person wants to know."""
        for file in self.added:
            yield f"added {file} to the Nix store, for `nix build` (`push` alone does without: gen --elsewhere)"
        for path in self.written.backups:
            yield f"kept what was there as {path}"
        for path in self.written.kept:
            yield f"left {path} as it is: it was edited (--force writes it anew and keeps yours as {path.name}~)"
        if words := self.kept.words():
            yield f"as chosen before: {shlex.join(words)} (--forget drops that)"
        parts = ", ".join(self.written.written)
        yield f"wrote {parts} to {self.request.output.resolve()}: {self.plan.summary()}"
        if cost := costs.words(self.plan, self.missing):
            yield f"cost: {cost}"
        if (
            self.plan.packages is Packages.NIXPKGS
            and self.choices.nixpkgs
            and not (self.request.output / "flake.lock").exists()
        ):
            yield f"{self.choices.nixpkgs} is not pinned yet: `nix build` pins it in flake.lock, which is to be committed"
        if not self.elsewhere:
            fetch = f"{self.request.fetch} && " if self.missing else ""
            yield f"next: {fetch}{nix.build_command(self.request.output)}"


def write(request: Request, *, elsewhere: bool = False, report: Report = lambda _: None) -> Generated:
    """Write a flake, `elsewhere` for another machine. No network is used. Nothing is written where something is wrong:
    AikitError.
    """
    output = request.output
    if not elsewhere:
        nix.ready()
    earlier = Choices() if request.forget else choices.read(output)
    added: list[Path] = []
    made = _make(request, request.chosen.over(earlier), None if elsewhere else added, report)
    if not elsewhere:
        nix.require(made.plan.packages.minimum_nix)
        report(nix.sandbox_warning())

    for file in (made.path, *(file for _, file in made.local)):
        if file.resolve().is_relative_to(output.resolve()):
            raise error(
                f"{file} lies in the flake's folder {output}, all of which Nix copies into its store: name a folder of the"
                " flake's own with --flake, or leave that out (./flake)",
                code="flake-folder",
            )
    if not elsewhere:
        added += fetch.add_local(made.local)
    written = folder.write(made.files, output, force=request.force)
    kept = _kept(earlier if any(earlier.words()) else Choices(), made.choices, request.chosen)
    missing = _missing(made.plan, output, elsewhere=elsewhere)
    return Generated(request, made.plan, made.choices, kept, written, tuple(added), missing, elsewhere)


def check(request: Request, report: Report = lambda _: None) -> Choices:
    """That a flake's folder is, byte for byte, what aikitfile, lock and the recorded choices give; those choices.

    Raises AikitError with all that differs. Pins of Debian packages that are not the shipped ones are no choice that may
    be recorded: they count where `debian_lock` names them.
    """
    merged = structs.replace(request.chosen.over(choices.read(request.output)), debian_lock=None)
    made = _make(request, merged, None, report)
    wrong = folder.differences(made.files, request.output)
    if differs := [Diagnostic(Severity.ERROR, "differs", each) for each in wrong]:
        raise AikitError(*differs)
    report(
        tuple(
            Diagnostic(Severity.NOTE, "revision", each) for each in folder.other_revisions(made.files, request.output)
        )
    )
    return made.choices


@dataclass(frozen=True)
class _Made:
    """The files of a flake, and what they are made of; `local` are models that are on this machine."""

    path: Path  # of the aikitfile
    files: Files
    plan: Plan
    choices: Choices
    local: tuple[tuple[Model, Path], ...]


def _make(request: Request, merged: Choices, added: list[Path] | None, report: Report) -> _Made:
    """Raises AikitError. Local models are hashed, and `added` to the store where a list for them is given."""
    own_lock, debian_lock = request.output / flake.DEBIAN_LOCK, request.debian_lock
    if debian_lock is None and merged.debian_lock and own_lock.is_file():
        debian_lock = own_lock
    merged = structs.replace(merged, debian_lock=True if debian_lock and merged.packages == Packages.DEBIAN else None)
    if merged.input and merged.debian_lock:
        raise error("--input takes the Debian packages' lock from that flake: leave --debian-lock out")
    project = projects.read(request.aikitfile, merged.read_as, request.lock)
    report(project.findings)
    report(tuple(projects.links(project.aikitfile.models, project.folder)))
    plan.server(project.aikitfile, merged.options())  # before models are read, which takes long
    pinned, local = projects.pin(project, added)
    projects.check_claims(project)
    planned, warnings = plan.make(pinned, merged.options(), projects.facts(project))
    planned = replace(planned, sources=tuple(_sources(project, request.output)))
    report(warnings)
    report(tuple(targets.warnings({system: platform.default for system, platform in planned.systems.items()})))
    own = debian_lock if merged.debian_lock else None
    lock = flake.read_debian_lock(own) if own else None
    report(tuple(ages.notes(planned, own)))
    return _Made(project.path, flake.render(planned, merged, lock), planned, merged, tuple(local))


def bring_models(project: Project, output: Path, jobs: int) -> tuple[int, int]:
    """Bring a project's models into the Nix store, and what their bytes say into its lock and the flake in a folder that was
    made from it; how many there are, and how many of them came. Raises AikitError.
    """
    nix.ready()
    added: list[Path] = []
    pinned, local = projects.pin(project, added)
    for file in [*added, *fetch.add_local(local)]:
        console.say(f"added {file} to the Nix store")
    was_current = project.lock is not None and made_from(output, Path(project.lock.file))
    count, has_changed = locking.bring(pinned, project.lock, jobs)
    if has_changed and was_current:
        renew(project, output)
    return len(pinned.models), count


def renew(project: Project, output: Path) -> None:
    """Write a flake anew, as it was chosen, from a lock that knows more now. Raises AikitError."""
    assert project.lock  # noqa: S101 (it knows more)
    write(Request(project.path, output, Choices(), Path(project.lock.file)), elsewhere=True)
    console.say(f"wrote the flake in {output.resolve()} anew, which knows it now", err=True)


def made_from(output: Path, file: Path) -> bool:
    """Whether the flake in a folder was made from a file (an aikitfile, a lock) as it is now."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return (os.path.relpath(file.resolve(), output.resolve()), digest) in folder.made_from(output)


def _kept(earlier: Choices, merged: Choices, chosen: Choices) -> Choices:
    """The earlier choices that were not made anew, and are in use."""
    names = [
        name
        for name in earlier.__struct_fields__
        if getattr(chosen, name) is None and getattr(merged, name) == getattr(earlier, name)
    ]
    return Choices(**{name: getattr(earlier, name) for name in names})


def _missing(planned: Plan, output: Path, *, elsewhere: bool) -> int:
    """The bytes of Debian's packages that a build of the first system's image downloads, as far as is known here."""
    if planned.packages is not Packages.DEBIAN:
        return 0
    from aikit_nix.debian import lock as debian

    own = output / flake.DEBIAN_LOCK
    system, platform = next(iter(planned.systems.items()))
    needed = debian.needed(debian.DebianLock.read(own if own.is_file() else debian.LOCK), system, platform.default)
    lacking = set(map(str, (package.store_path for package in needed)))
    if not elsewhere:
        lacking = set(nix.invalid(lacking))
    return sum(package.size for package in needed if str(package.store_path) in lacking)


def _sources(project: Project, output: Path) -> Iterator[SourceFile]:
    """The aikitfile and its lock, where they lie in a folder above the flake's, or in the same git repository."""
    there = output.resolve()
    root = next((parent for parent in (there, *there.parents) if (parent / ".git").exists()), None)
    for path, read in (
        (project.path, project.aikitfile.data),
        *([(Path(project.lock.file), None)] if project.lock else []),
    ):
        file = path.resolve()
        if there.is_relative_to(file.parent) or (root and file.is_relative_to(root)):
            content = read if read is not None else file.read_bytes()
            name = os.path.relpath(file, there)
            if any("\ud800" <= character <= "\udfff" for character in name):
                raise error(f"{path}: the name {name!r} is no UTF-8, which the plan has to be: rename it")
            yield SourceFile(name, hashlib.sha256(content).hexdigest())
