"""The wrapper that starts other programs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from aikit_nix.base import process
from aikit_nix.base.errors import AikitError

BUSY = "error: SQLite database '/nix/var/nix/db/db.sqlite' is busy"


def busy(folder: Path, times: int) -> Path:
    """A program that finds Nix's database busy so many times, and then prints what it was given."""
    program = folder / "nix-store"
    program.write_text(f"""#!/bin/sh
echo >> "$0.calls"
[ $(wc -l < "$0.calls") -gt {times} ] && exec cat
echo "{BUSY}" >&2
exit 1
""")
    program.chmod(0o755)
    return program


def test_a_busy_nix_database_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says so, without waiting, to who opens a database that another one just closes."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert process.run([busy(tmp_path, 2)], stdin=b"all of it") == "all of it"
    assert len(waits) == 2


def test_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(AikitError, match=BUSY):
        process.run([busy(tmp_path, 1000)])
    assert 5 < sum(waits) < 60


def test_another_failure_is_one() -> None:
    with pytest.raises(AikitError, match="`sh` failed with status 3: why"):
        process.run(["sh", "-c", "echo why >&2; exit 3"])


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(AikitError) as failed:
        process.run(["sh", "-c", "echo why >&2; exit 3"], secret=True)
    assert "why" not in str(failed.value)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(AikitError, match=r"`nix-nothing` cannot be run: it is not on PATH \(apt-get install nix-bin"):
        process.run(["nix-nothing"])


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(AikitError, match=r"was not done after 0\.1 s"):
        process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.1)
