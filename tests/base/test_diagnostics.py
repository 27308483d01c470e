"""Diagnostics as people and programs read them. What holds for any text stands in test_input_properties.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aikit_nix.base import diagnostics
from aikit_nix.base.errors import Diagnostic, Position, Severity
from aikit_nix.base.rules import DESCRIPTIONS

FOUND = (
    Diagnostic(Severity.WARNING, "unknown-key", "`colour` is not a key", Position("my files/ä.yaml", 5, 2)),
    Diagnostic(Severity.ERROR, "runtime", "no such runtime", Position("/srv/a.yaml", 1, 1)),
    Diagnostic(Severity.ERROR, "unreadable", "cannot read x"),
)


@pytest.mark.parametrize(
    ("line", "column", "shown", "marks"),
    [
        ("abc def ghi", 5, "abc def ghi", "    ^^^"),
        ("日本 x", 4, "日本 x", "     ^"),
        ("a\x1b[31mb c", 9, "a\ufffd[31mb c", "        ^"),
        ("a\u202eb", 1, "a\ufffdb", "^^^"),
        ("abc", 9, "abc", "   ^"),
        ("x" * 300, 1, "x" * 100 + "…", "^" * 100),
    ],
)
def test_the_line_and_its_carets(line: str, column: int, shown: str, marks: str) -> None:
    text = diagnostics.text([Diagnostic(Severity.ERROR, "x", "message", Position("f", 1, column, f"{line}\n"))])
    assert text.split("\n")[1:] == [f"     1 | {shown}", f"       | {marks}", ""]


@pytest.mark.parametrize(
    "at",
    [None, Position("f", 1, 1), Position("f", 9, 1, "a\n"), Position("f", 1, 1, "  \n"), Position("f", 1, 7, "\n")],
)
def test_where_there_is_no_line_to_show_the_message_stands_alone(at: Position | None) -> None:
    where = f" {at}:" if at else ""
    assert diagnostics.text([Diagnostic(Severity.NOTE, "x", "message", at)]) == f"note:{where} message\n"


def test_colour_is_the_only_difference_that_colour_makes() -> None:
    coloured = diagnostics.text(FOUND, colour=True)
    assert "\x1b[33m\x1b[1mwarning" in coloured
    for code in (0, 1, 2, 31, 33):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == diagnostics.text(FOUND)


def test_json_counts_and_tells_all() -> None:
    report = json.loads(diagnostics.json(FOUND))
    assert (report["errors"], report["warnings"]) == (2, 1)
    assert report["diagnostics"][0] == {
        "severity": "warning",
        "code": "unknown-key",
        "message": "`colour` is not a key",
        "file": "my files/ä.yaml",
        "line": 5,
        "column": 2,
    }
    assert report["diagnostics"][2]["file"] is None


def test_sarif_points_into_files_by_url_and_names_each_rule_once() -> None:
    log = json.loads(diagnostics.sarif([*FOUND, FOUND[0]]))
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["runtime", "unknown-key", "unreadable"]
    assert run["tool"]["driver"]["rules"][0]["shortDescription"]["text"] == DESCRIPTIONS["runtime"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
    relative, absolute, nowhere, _ = (result["locations"] for result in run["results"])
    assert relative[0]["physicalLocation"] == {
        "artifactLocation": {"uri": "my%20files/%C3%A4.yaml"},
        "region": {"startLine": 5, "startColumn": 2},
    }
    assert absolute[0]["physicalLocation"]["artifactLocation"]["uri"] == Path("/srv/a.yaml").as_uri()
    assert nowhere == []


def test_a_name_that_is_no_unicode_has_a_url_too() -> None:
    for file in ("\udcff.yaml", "/\udcff.yaml"):
        log = json.loads(diagnostics.sarif([Diagnostic(Severity.ERROR, "x", "m", Position(file, 1, 1))]))
        (location,) = log["runs"][0]["results"][0]["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"].endswith("%FF.yaml")
