"""Old pins are said, and those of today are not."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base import data
from aikit_nix.debian import lock as debian
from aikit_nix.flakes import ages
from aikit_nix.flakes.plan import Engine, Options, Packages, Plan, make
from support.command import aikit_nix
from support.flakes import PINNED

PIN = json.loads((data.NIX / "pins.json").read_text())["localai"]


def planned(packages: Packages, engine: Engine) -> Plan:
    plan, _ = make(parse(PINNED, "aikitfile.yaml")[0], Options(packages=packages))
    return dataclasses.replace(plan, engine=engine)


LOCALAI = planned(Packages.NIXPKGS, Engine.LOCALAI)
DEBIAN = planned(Packages.DEBIAN, Engine.LLAMA_SERVER)


def after(monkeypatch: pytest.MonkeyPatch, date: str, days: int) -> None:
    then = datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() + days * 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(then)))


def test_localai_is_old_after_four_months(monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, PIN["date"], 120)
    assert not list(ages.notes(LOCALAI))
    after(monkeypatch, PIN["date"], 121)
    (note,) = ages.notes(LOCALAI)
    assert note.message.startswith(f"LocalAI {PIN['tag']}: pinned as of {PIN['date']}, 121 days ago")
    assert not list(ages.notes(planned(Packages.NIXPKGS, Engine.LLAMA_SERVER)))


def test_of_debians_packages_the_lock_that_is_used_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "lock.json"
    own.write_text(debian.LOCK.read_text().replace(json.loads(debian.LOCK.read_text())["date"], "2020-01-01T00:00:00Z"))
    after(monkeypatch, "2020-01-01", 200)
    assert not list(ages.notes(DEBIAN))
    (note,) = ages.notes(DEBIAN, own)
    assert "Debian's packages: pinned as of 2020-01-01, 200 days ago; `aikit-nix debian-lock`" in note.message


def test_check_and_gen_say_it_and_the_version_has_the_dates(tmp_path: Path) -> None:
    (tmp_path / "aikitfile.yaml").write_bytes(PINNED)
    late = {**os.environ, "SOURCE_DATE_EPOCH": str(int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()))}
    for arguments in (["check"], ["gen", "-o", "out"]):
        said = aikit_nix(*arguments, cwd=tmp_path, env=late).stderr
        assert f"LocalAI {PIN['tag']}: pinned as of {PIN['date']}" in said
    said = aikit_nix("--version", cwd=tmp_path).stdout
    assert said == aikit_nix("version", cwd=tmp_path).stdout
    assert f"LocalAI {PIN['tag']} of {PIN['date']}, Debian packages of 20" in said


@pytest.mark.parametrize("epoch", ["9" * 14, "9" * 30, "-" + "9" * 14, "soon", ""])
def test_what_is_no_time_is_left_aside(monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    today = list(ages.notes(LOCALAI))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert list(ages.notes(LOCALAI)) == today
