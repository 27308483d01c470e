"""The Nix library: which of its files a plan reaches.

A generated flake gets these and no others. The rule: from `default.nix` on, a file is reached when a reached Nix file
names it by a literal `./` or `../` path (a folder stands for its `default.nix`), and no part of its path is named after a
package set, an engine or a backend that the plan does not have. What is cut off so is behind a choice in the Nix code that
the plan makes the other way, and Nix is lazy: it never looks for it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from aikit_nix.aikitfile.types import Backend
from aikit_nix.base import data
from aikit_nix.flakes.plan import Engine, Packages, Plan

_ENTRY = "default.nix"
_PATH = re.compile(r"(?<![\w./])\.\.?/[\w./+-]*[\w+-]")


def files(plan: Plan) -> dict[str, bytes]:
    """The files of the library that the plan reaches: paths relative to the library's folder → bytes."""
    others = _others(plan)
    found: dict[str, bytes] = {}
    waiting = [_ENTRY]
    while waiting:
        path = waiting.pop()
        if path in found or others & {part.partition(".")[0] for part in path.split("/")}:
            continue
        found[path] = (data.NIX / path).read_bytes()
        if path.endswith(".nix"):
            waiting += _named(path, found[path].decode())
    return dict(sorted(found.items()))


def _others(plan: Plan) -> set[str]:
    """The names of what the plan did not choose."""
    return {*Packages, *Engine, *Backend} - {plan.packages, plan.engine, *plan.backends}


def _named(path: str, text: str) -> Iterator[str]:
    """The library's files that a Nix file names. A text may hold paths of other trees too, those of sources."""
    for literal in _PATH.findall(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), literal))
        file = data.NIX / target
        if target.startswith(".."):
            continue
        if file.is_dir():
            yield f"{target}/{_ENTRY}"
        elif file.is_file():
            yield target
