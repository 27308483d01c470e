"""Pushes of small images, with little patience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Timeouts
from aikit_nix.image import layout, push
from aikit_nix.registry import reference

TIMEOUTS = Timeouts(connect=5, read=5, answer=10, attempts=3, first_wait=0.05, longest_wait=0.1)
MIB = 1 << 20
PATH = "/models/tiny.gguf"


def send(folder: Path, to: str, **options: Any) -> push.Outcome:
    """Push the image of an OCI layout."""
    how = push.Sending(timeouts=TIMEOUTS, **options)
    return push.push([push.of_image(layout.read_layout(folder), how.elsewhere)], reference.parse(to), how)


def refused(folder: Path, to: str, **options: Any) -> str:
    """What is said of a push that fails as it should."""
    with pytest.raises(AikitError) as raised:
        send(folder, to, **options)
    return str(raised.value)
