"""The environment in which tests and tools run Nix, however it was installed."""

from __future__ import annotations

import os

from aikit_nix.nix import setup


def environment() -> dict[str, str]:
    """What to add to the environment of a program that runs Nix.

    Flakes on; no registry look-ups; builds in a sandbox or not at all.
    """
    settings = ["extra-experimental-features = nix-command flakes", "flake-registry ="]
    if not setup.daemon():
        settings += ["sandbox = true", "sandbox-fallback = false"]
        if os.geteuid() != 0 or not setup.has_build_users():
            settings.append("build-users-group =")
    before = os.environ.get("NIX_CONFIG", "")
    return {"PATH": setup.path(), "NIX_CONFIG": "\n".join([*settings, before])}
