"""How old the pins are that images are made from: LocalAI's release, and the index of Debian's packages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aikit_nix.base import data
from aikit_nix.base.errors import Diagnostic, Severity
from aikit_nix.flakes.plan import Engine, Packages, Plan

# So many fixes and security updates have come since that somebody should look.
OLD = timedelta(days=120)


def versions() -> str:
    """What this aikit-nix pins, each with its date: for people."""
    tag, date = _localai()
    return f"LocalAI {tag} of {date:%Y-%m-%d}, Debian packages of {_debian(None):%Y-%m-%d}"


def notes(plan: Plan, debian_lock: Path | None = None) -> Iterator[Diagnostic]:
    """Which pins of the plan are old. Today is SOURCE_DATE_EPOCH's day where that is set, as for other build tools."""
    try:
        today = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):  # not set, or no time
        today = datetime.now(UTC)
    if plan.packages is Packages.DEBIAN:
        what, date = "Debian's packages", _debian(debian_lock)
        remedy = "`aikit-nix debian-lock` pins today's, with their security updates"
    elif plan.engine is Engine.LOCALAI:
        tag, date = _localai()
        what, remedy = f"LocalAI {tag}", "a newer aikit-nix may have a newer one"
    else:
        return
    if today - date > OLD:
        message = f"{what}: pinned as of {date:%Y-%m-%d}, {(today - date).days} days ago; {remedy}"
        yield Diagnostic(Severity.NOTE, "age", message)


def _localai() -> tuple[str, datetime]:
    pin = json.loads((data.NIX / "pins.json").read_bytes())["localai"]
    return pin["tag"], datetime.fromisoformat(pin["date"]).replace(tzinfo=UTC)


def _debian(file: Path | None) -> datetime:
    from aikit_nix.debian import lock as debian

    return debian.DebianLock.date_of(file or debian.LOCK) or datetime.now(UTC)
