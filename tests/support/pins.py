"""Pins for tests that plan without files, lock or network."""

from __future__ import annotations

from dataclasses import replace

from aikit_nix.aikitfile.types import Aikitfile, Pin

SHA256 = "1" * 64


def pinned(aikitfile: Aikitfile) -> Aikitfile:
    """The aikitfile with a pin for each model that has none."""
    return replace(aikitfile, models=tuple(replace(model, pin=model.pin or Pin(SHA256)) for model in aikitfile.models))
