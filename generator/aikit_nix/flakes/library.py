"""The Nix library: which of its files a plan needs, which are those that a generated flake gets.

All of nix/, less what is for other flakes, and less what belongs to a package set, an engine or a backend that the plan did
not choose: what is named after it, and what `_OF` says. In the Nix code such a file stands behind a choice that the plan
makes the other way, and Nix is lazy: it never looks for it.
"""

from __future__ import annotations

from aikit_nix.aikitfile.types import Backend
from aikit_nix.base import data
from aikit_nix.flakes.plan import Engine, Packages, Plan

# For flakes that import the library; and how the programs that it carries were made.
_APART = (
    "flake-module.nix",
    "lib/",
    "mk-image.nix",
    "nixos-module.nix",
    "nixpkgs/",
    "overlay.nix",
    "packages/debian/seed/seed.c",
    "start/build.sh",
)
_OF = {
    "engines/": Packages.NIXPKGS,
    "image/layers.py": Packages.NIXPKGS,
    "pins.json": Engine.LOCALAI,
    "start/flags": Packages.NIXPKGS,
    "start/start.c": Packages.NIXPKGS,
}


def files(plan: Plan) -> dict[str, bytes]:
    """The files of the library that the plan needs: paths relative to the library's folder → bytes."""
    others = {*Packages, *Engine, *Backend} - {plan.packages, plan.engine, *plan.backends}
    apart = (*_APART, *(path for path, owner in _OF.items() if owner in others))
    paths = (str(file.relative_to(data.NIX)) for file in data.NIX.rglob("*") if file.is_file())
    return {
        path: (data.NIX / path).read_bytes()
        for path in sorted(paths)
        if not path.startswith(apart)
        and "__pycache__" not in path
        and not others & {part.partition(".")[0] for part in path.split("/")}
    }
