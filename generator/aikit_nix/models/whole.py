"""What a lock must be as a whole: no two files on one path, and of a model in several files all of them."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator

from aikit_nix.aikitfile.types import Aikitfile, Model
from aikit_nix.base.errors import AikitError, Diagnostic, Severity
from aikit_nix.models.lock import Lock
from aikit_nix.sources.names import first_shard, shards


def check(aikitfile: Aikitfile, lock: Lock) -> None:
    """Raises AikitError where files collide or lack: only their origins said which there are."""
    if problems := [*_collisions(aikitfile, lock), *_incomplete(aikitfile, lock)]:
        raise AikitError(*problems)


def _collisions(aikitfile: Aikitfile, lock: Lock) -> Iterator[Diagnostic]:
    """Two models, or two archives of one, with a file on the same path."""
    first: dict[str, Model] = {}
    for model in aikitfile.models:
        entry = lock.entry(model)
        paths = [path for path, _ in entry.files] if entry else []
        if twice := next((path for path, count in Counter(paths).items() if count > 1), None):
            message = f"`{model.name.value}` has two files on {twice}: name an artifact that has one"
            yield Diagnostic(Severity.ERROR, "collision", message, model.source.at)
        for path in paths:
            other = first.setdefault(path, model)
            if other.source.at != model.source.at:
                message = f"`{model.name.value}` lands on {path}, as line {other.at.line} does: leave one of them out"
                yield Diagnostic(Severity.ERROR, "collision", message, model.source.at)


def _incomplete(aikitfile: Aikitfile, lock: Lock) -> Iterator[Diagnostic]:
    """A model with some of its files: llama.cpp looks for the others beside the first."""
    there = {path for entry in lock.entries.values() for path, _ in entry.files}
    for model in aikitfile.models:
        entry = lock.entry(model)
        for path, _ in entry.files if entry else ():
            folder, name = posixpath.split(path)
            wanted = [posixpath.join(folder, each) for each in shards(first_shard(name))]
            if lacking := next((each for each in wanted if each not in there), None):
                message = f"`{model.name.value}` has {name}, and not {posixpath.basename(lacking)} of the same model"
                yield Diagnostic(Severity.ERROR, "incomplete", message, model.source.at)
                break
