"""Nix's own log, as people see it."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from aikit_nix.nix.log import Log


def event(**values: object) -> str:
    return "@nix " + json.dumps(values)


def test_the_log_says_what_is_built_and_how_long_it_took() -> None:
    log = Log()
    drv = "/nix/store/00000000000000000000000000000000-llama-cpp-1.2.drv"
    start = event(action="start", id=1, type=105, text=f"building '{drv}'", fields=[drv, "", 1, 1])
    assert list(log.take(start, 0)) == ["building llama-cpp-1.2"]
    assert log.status() == "0 done; llama-cpp-1.2"
    list(log.take(event(action="start", id=2, type=101, text="downloading", fields=["https://x/y"]), 0))
    assert list(log.take(event(action="stop", id=2), 1)) == []
    assert list(log.take(event(action="stop", id=1), 61)) == ["llama-cpp-1.2: done in 61 s"]
    assert log.status() == "2 done"


def test_a_failure_comes_with_the_last_lines_of_its_build() -> None:
    log = Log()
    list(log.take(event(action="start", id=1, type=105, text="", fields=["/nix/store/x.drv"]), 0))
    for number in range(50):
        list(log.take(event(action="result", id=1, type=101, fields=[f"line {number}"]), 0))
    list(log.take(event(action="stop", id=1), 1))
    list(log.take(event(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m builder failed"), 1))
    assert log.wrong().splitlines()[-3:] == ["line 48", "line 49", "error: builder failed"]
    list(log.take(event(action="msg", level=0, msg="error: last 10 log lines:\n> line 49"), 1))
    assert log.wrong().splitlines()[0] == "error: builder failed"


HOSTILE = [
    "@nix",
    "@nix {",
    "@nix []",
    "@nix 1",
    '@nix {"action": "start"}',
    '@nix {"action": "start", "type": [], "id": 2}',
    '@nix {"action": "start", "type": 105, "id": {}, "fields": [[]]}',
    '@nix {"action": "result", "id": 1}',
    '@nix {"action": "result", "id": 1, "type": 101, "fields": []}',
    '@nix {"action": "result", "id": 1, "type": 101, "fields": 7}',
    '@nix {"action": "stop", "id": []}',
    '@nix {"action": "msg", "level": 0}',
    "@nix " + "[" * 100_000,
]


@pytest.mark.parametrize("line", HOSTILE)
def test_a_log_of_another_kind_does_no_harm(line: str) -> None:
    log = Log()
    list(log.take(event(action="start", id=1, type=105, fields=["/nix/store/x.drv"]), 0))
    assert list(log.take(line, 0)) == []
    assert log.status().startswith("0 done; ")


def test_at_most_three_builds_are_named_and_builds_before_downloads() -> None:
    log = Log()
    list(log.take(event(action="start", id=9, type=101, fields=["https://x/y"]), 0))
    assert log.status() == "0 done; https://x/y"
    for number in range(5):
        drv = f"/nix/store/{'0' * 32}-p{number}.drv"
        list(log.take(event(action="start", id=number, type=105, fields=[drv]), 0))
    assert log.status() == "0 done; p0, p1, p2 and 2 more"


def test_what_nix_says_beside_its_log_is_kept_for_when_it_fails() -> None:
    log = Log()
    assert list(log.take("error: cannot connect to the daemon", 0)) == []
    assert log.wrong() == "error: cannot connect to the daemon"


def test_the_terminal_may_ask_while_lines_come() -> None:
    log = Log()
    lines = [event(action=action, id=at, type=105, fields=["x"]) for action in ("start", "stop") for at in range(20)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            taking = pool.submit(lambda: [list(log.take(line, 0)) for _ in range(200) for line in lines])
            while not taking.done():
                assert log.status()
    finally:
        sys.setswitchinterval(before)


def test_what_no_build_said_is_in_no_failure() -> None:
    log = Log()
    list(log.take(event(action="start", id=1, type=105, text="built", fields=[""]), 0))
    list(log.take(event(action="start", id=2, type=101, text="fetched", fields=None), 0))
    assert log.status() == "0 done; built"
    list(log.take(event(action="result", id=1, type=101, fields=["said"]), 0))
    list(log.take(event(action="result", id=1, type=105, fields=["a number"]), 0))
    list(log.take(event(action="stop", id=1), 10))
    assert log.status() == "1 done; fetched"
    assert list(log.take(event(action="stop", id=2), 99)) == []  # no build
    list(log.take(event(action="msg", level=3, msg="no error"), 0))
    list(log.take(event(action="msg", level=0, raw_msg="raw", msg="with all that stands around it"), 0))
    assert log.wrong() == "said\nraw"
    list(log.take(event(action="msg", level=0, msg="log lines: said"), 0))
    assert log.wrong() == "raw\nlog lines: said"
    without = Log()
    list(without.take(event(action="msg", level=0, msg="alone"), 0))
    assert without.wrong() == "alone"
