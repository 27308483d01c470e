"""Diagnostics for people (with the source line and a caret), for programs (JSON) and for CI (SARIF 2.1.0)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from aikit_nix import __version__
from aikit_nix.base.errors import Diagnostic, Position, Severity
from aikit_nix.base.redact import printable

_WIDTH = 100  # columns of a source line that are shown
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def text(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """Each diagnostic as its one-line form, below it the line of the file that it is about."""
    return "".join(_one(diagnostic, colour=colour) for diagnostic in diagnostics)


def json(diagnostics: Sequence[Diagnostic]) -> str:
    """An object with `errors` and `warnings` (numbers) and `diagnostics` (a list)."""
    found = [
        {
            "severity": diagnostic.severity.value,
            "code": diagnostic.code,
            "message": diagnostic.message,
            "file": diagnostic.at.file if diagnostic.at else None,
            "line": diagnostic.at.line if diagnostic.at else None,
            "column": diagnostic.at.column if diagnostic.at else None,
        }
        for diagnostic in diagnostics
    ]
    count = {severity: sum(d.severity is severity for d in diagnostics) for severity in Severity}
    return _dump({"errors": count[Severity.ERROR], "warnings": count[Severity.WARNING], "diagnostics": found})


def sarif(diagnostics: Sequence[Diagnostic]) -> str:
    """A SARIF 2.1.0 log of one run, as code scanning services take it."""
    rules = sorted({diagnostic.code for diagnostic in diagnostics})
    run = {
        "tool": {"driver": {"name": "aikit-nix", "version": __version__, "rules": [_rule(rule) for rule in rules]}},
        "columnKind": "unicodeCodePoints",
        "results": [
            {
                "ruleId": diagnostic.code,
                "ruleIndex": rules.index(diagnostic.code),
                "level": diagnostic.severity.value,
                "message": {"text": diagnostic.message},
                "locations": [_location(diagnostic.at)] if diagnostic.at else [],
            }
            for diagnostic in diagnostics
        ],
    }
    return _dump({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]})


def _rule(rule: str) -> dict[str, Any]:
    from aikit_nix.base.rules import DESCRIPTIONS

    return {"id": rule, "shortDescription": {"text": DESCRIPTIONS.get(rule, rule)}}


def _location(at: Position) -> dict[str, Any]:
    from urllib.parse import quote

    path = Path(at.file)
    uri = path.as_uri() if path.is_absolute() else quote(os.fsencode(path))
    region = {"startLine": at.line, "startColumn": at.column}
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}


def _dump(value: object) -> str:
    from json import dumps

    return dumps(value, indent=2) + "\n"


def _one(diagnostic: Diagnostic, *, colour: bool) -> str:
    import click

    def style(part: str, **how: Any) -> str:
        return click.style(part, **how) if colour else part

    severity = diagnostic.severity
    head = style(severity.value, fg=_COLOURS[severity], bold=True) + style(":", bold=True)
    where = f" {printable(str(diagnostic.at))}:" if diagnostic.at else ""
    shown = f"{head}{where} {style(printable(diagnostic.message), bold=True)}\n"
    excerpt = _excerpt(diagnostic.at) if diagnostic.at else None
    if excerpt and diagnostic.at:
        line, marks = excerpt
        margin = f"{diagnostic.at.line:>6} | "
        bar = " " * (len(margin) - 2) + "| "
        shown += style(margin, dim=True) + line + "\n" + style(bar, dim=True)
        carets = marks.lstrip()
        shown += marks[: -len(carets)] + style(carets, fg=_COLOURS[severity], bold=True) + "\n"
    return shown


def _excerpt(at: Position) -> tuple[str, str] | None:
    """The line, cut to what fits, and the carets below what is meant."""
    lines = _lines(at.text)
    if at.line > len(lines) or not lines[at.line - 1].strip():
        return None
    line = lines[at.line - 1].rstrip("\r\n")
    start = min(at.column - 1, len(line))
    first = max(0, min(start - _WIDTH // 2, len(line) - _WIDTH))
    last = first + _WIDTH
    end = start
    while end < min(last, len(line)) and not line[end].isspace():
        end += 1
    shown = ("…" if first else "") + _replaced(line[first:last]) + ("…" if last < len(line) else "")
    indent = _columns(line[first:start]) + bool(first)
    return shown, " " * indent + "^" * max(1, _columns(line[start:end]))


@lru_cache(maxsize=2)
def _lines(text: str) -> list[str]:
    return text.split("\n")


def _replaced(line: str) -> str:
    """A line of which each character keeps its place, so that the carets stand below what is meant."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)


def _columns(part: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in part)
