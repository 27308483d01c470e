"""Pipelines to own: check, bring, build with the network off, build again elsewhere, compare, push, sign."""

from __future__ import annotations

import re
from pathlib import Path

from aikit_nix.base import data
from aikit_nix.base.errors import error
from aikit_nix.base.redact import shown
from aikit_nix.flakes import choices
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.materials import Materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.models import lock

# The commits of these tags, as the actions' own repositories have them.
_ACTIONS = {
    "checkout": "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
    "cache": "actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5",
    "upload": "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0",
    "download": "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1",
    "cosign": "sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2",
}
# What neither YAML, nor a shell, nor the vendors' own expressions take for more than text, nor a program for an option.
_PLAIN = re.compile(r"[A-Za-z0-9./][A-Za-z0-9 ._/@:+=~,-]*")


def pipeline(vendor: str, install: str, aikitfile: Path, lock_path: Path | None, found: Materials) -> str:
    """The text of a pipeline for the repository whose top is the current folder. Raises AikitError.

    `install` is what pipx installs: a wheel, a folder, or `git+https://…@COMMIT`.
    """
    system = found.system("x86_64-linux" if "x86_64-linux" in found.plan.systems else None)
    return data.template(
        f"ci/{vendor}.yml.j2",
        install=_plain("--install", install),
        aikitfile=_plain("the aikitfile", _inside(aikitfile)),
        lock=_plain("the lock", _inside(lock_path or lock.beside(aikitfile))),
        flake=_plain("the flake", _inside(found.folder)),
        tag=_plain("the image's tag", found.reference(system).rpartition(":")[2]),
        actions=_ACTIONS,
        debian_lock=flake.DEBIAN_LOCK if found.plan.packages is Packages.DEBIAN else None,
        own_pins=flake.DEBIAN_LOCK if choices.read(found.folder).debian_lock else None,
    )


def _inside(path: Path) -> str:
    whole, top = path.resolve(), Path.cwd()
    if not whole.is_relative_to(top):
        raise error(f"{shown(str(path))} lies outside of this folder, which is to be the repository's top")
    return str(whole.relative_to(top))


def _plain(what: str, text: str) -> str:
    if not _PLAIN.fullmatch(text):
        signs = ". _ / @ : + = ~ , -, and begins with a letter, a digit, . or /"
        raise error(f"{what} {shown(text)}: a pipeline takes letters, digits, blanks and {signs}")
    return text
