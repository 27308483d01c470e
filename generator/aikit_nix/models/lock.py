"""aikit.lock: what is known of the bytes of every model, reviewed and committed beside the aikitfile.

JSON, sorted, one model a block. An entry belongs to the model of the aikitfile with the same name and source; it lists the
files that the source stands for, where each lands in the image, and what the origin says about itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, structs

from aikit_nix.aikitfile.types import Aikitfile, Model, Pin
from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.models import agreement
from aikit_nix.models.entry import Entry

VERSION = 1
NAME = "aikit.lock"
_MAX_BYTES = 64 * 1024 * 1024


class _Version(Struct, frozen=True):
    version: Annotated[int, Meta(ge=VERSION)]


class _Content(_Version, frozen=True):
    models: tuple[Entry, ...]


@dataclass(frozen=True)
class Lock:
    """The whole lock. `file` is its name in messages."""

    file: str
    entries: Mapping[tuple[str, str], Entry]

    @classmethod
    def of(cls, file: str, entries: Iterable[Entry]) -> Lock:
        return cls(file, {entry.key: entry for entry in entries})

    def to_json(self) -> str:
        """The same pins give the same bytes."""
        entries = [self.entries[key] for key in sorted(self.entries)]
        ordered = (structs.replace(each, listed=tuple(sorted(each.listed, key=attrgetter("path")))) for each in entries)
        return typed_json.encode(_Content(VERSION, tuple(ordered)))

    def files(self) -> list[tuple[str, Pin]]:
        """All files, as (path in the image, pin)."""
        return [file for entry in self.entries.values() for file in entry.files]

    def entry(self, model: Model) -> Entry | None:
        """What is known of a model of the aikitfile."""
        return self.entries.get((model.name.value, model.source.value.text))

    def filled(self, seen: Mapping[str, Pin]) -> Lock:
        """The lock with what the bytes of files say (by path in the image), where it says the same sha256."""

        def fill(path: str, pin: Pin) -> Pin:
            found = seen.get(path)
            if found is None or found.sha256 != pin.sha256:
                return pin
            return replace(
                pin,
                blake3=found.blake3 or pin.blake3,
                layer=found.layer or pin.layer,
                gguf=found.gguf or pin.gguf,
            )

        return Lock.of(
            self.file,
            (
                Entry.of(entry.name, entry.source, entry.origin, [(path, fill(path, pin)) for path, pin in entry.files])
                for entry in self.entries.values()
            ),
        )

    def unused(self, models: Sequence[Model]) -> list[Entry]:
        """Entries that no model has: it was renamed or removed."""
        wanted = {(model.name.value, model.source.value.text) for model in models}
        return [entry for key, entry in sorted(self.entries.items()) if key not in wanted]


def beside(aikitfile: Path) -> Path:
    """Where an aikitfile's lock lies unless told otherwise."""
    name = NAME if aikitfile.name == "aikitfile.yaml" else f"{aikitfile.stem}.lock"
    if name in ("flake.lock", aikitfile.name):  # Nix' own, and the aikitfile itself
        name = f"{aikitfile.name}.lock"
    return aikitfile.parent / name


def read(path: Path) -> Lock | None:
    """The lock in a file; None where there is none. Raises AikitError where it is no lock."""
    if not os.path.lexists(path):
        return None
    return parse(files.read_bounded(path, _MAX_BYTES), str(path))


def parse(data: bytes, file: str) -> Lock:
    """The lock in some bytes. Raises AikitError, which says what to do."""
    mend = "put it back from version control, or write it anew with `aikit-nix lock`"
    if re.search(rb"^(<{7}|>{7}) ", data, re.MULTILINE):
        raise error(
            f"{file} has conflict markers of a merge in it: take either side, then run `aikit-nix lock`", code="lock"
        )
    with typed_json.refusing(f"{file} is no aikit.lock", mend, "lock"):
        content = typed_json.parse(data)
        version = typed_json.convert(content, _Version).version
        if version > VERSION:
            raise error(
                f"{file} is of version {version}, from a newer aikit-nix: upgrade this one ({VERSION})", code="lock"
            )
        models = typed_json.convert(content, _Content).models
        found = Lock.of(file, models)
        if len(found.entries) < len(models):
            raise ValueError("it has two entries of one model")
        for each in models:
            agreement.require(each)
    return found


def apply(aikitfile: Aikitfile, lock: Lock | None) -> tuple[Aikitfile, list[Diagnostic]]:
    """The aikitfile with each model's pin, a source of several files as a model for each file; and what is at odds.

    A sha256 of the aikitfile counts, with or without a lock.
    """
    found: list[Diagnostic] = []
    listed = {model.path for model in aikitfile.models}
    models = [each for model in aikitfile.models for each in _apply(model, lock, listed, found)]
    found += _foreign(lock, aikitfile.models, {model.path for model in models}) if lock else ()
    return replace(aikitfile, models=tuple(models)), found


def _foreign(lock: Lock, models: Sequence[Model], paths: set[str]) -> Iterator[Diagnostic]:
    """Entries of no model for files that a model has: what they say of an origin would be repeated of these."""
    for entry in lock.unused(models):
        for path, _ in entry.files:
            if any(path == each or path.startswith(f"{each}/") for each in paths):
                message = (
                    f"{lock.file} says that {path} is `{entry.name}` from {entry.source}, and the aikitfile does not: run"
                    " `aikit-nix lock`"
                )
                yield Diagnostic(Severity.ERROR, "lock-unused", message)
                break


def _apply(model: Model, lock: Lock | None, listed: set[str], found: list[Diagnostic]) -> Iterator[Model]:
    entry = lock.entry(model) if lock else None
    if lock is None or entry is None:
        pin = (
            Pin(model.sha256.value, url=getattr(model.source.value, "url", None))
            if model.sha256 and not model.is_several
            else None
        )
        yield replace(model, pin=pin)
        return
    own = dict(entry.files)
    pinned = (own.get(model.path) or entry.files[0][1]).sha256
    if model.sha256 and model.sha256.value != pinned:
        found.append(
            Diagnostic(
                Severity.ERROR,
                "sha256-mismatch",
                f"the sha256 here is {model.sha256.value}, that of {lock.file} is {pinned}: correct the one that is wrong"
                f" (`aikit-nix lock --update` takes this one)",
                model.sha256.at,
            )
        )
    templates = model.prompt_templates
    for path, pin in entry.files:
        # The other shards of a model may be listed as models of their own
        if path == model.path or path not in listed:
            yield replace(model, path=path, pin=pin, prompt_templates=templates)
            templates = ()


def unpinned(models: Iterable[Model]) -> AikitError | None:
    """One error that names every model whose bytes nothing fixes."""
    missing = [model for model in models if model.pin is None]
    if not missing:
        return None
    problems = [
        Diagnostic(
            Severity.ERROR, "not-pinned", f"nothing says which file the model `{model.name.value}` is", model.source.at
        )
        for model in missing
    ]
    count = "it" if len(missing) == 1 else f"all {len(missing)}"
    last = problems[-1]
    problems[-1] = replace(last, message=f"{last.message}: pin {count} with `aikit-nix lock`")
    return AikitError(*problems)
