"""One finding is one line that says where; an error carries all of them."""

from __future__ import annotations

from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity, error


def test_a_finding_is_one_line_that_says_how_bad_and_where() -> None:
    at = Position("aikitfile.yaml", 3, 7, "the whole text")
    assert str(Diagnostic(Severity.WARNING, "x", "what, and what to do", at)) == (
        "warning: aikitfile.yaml:3:7: what, and what to do"
    )
    assert str(Diagnostic(Severity.NOTE, "x", "what")) == "note: what"


def test_an_error_says_all_its_findings_a_line_each() -> None:
    both = AikitError(*error("a").diagnostics, *error("b", Position("f", 1, 1), "no-name").diagnostics)
    assert str(both) == "error: a\nerror: f:1:1: b"
    assert [(finding.severity, finding.code) for finding in both.diagnostics] == [
        (Severity.ERROR, "error"),
        (Severity.ERROR, "no-name"),
    ]


def test_places_are_compared_by_where_they_are_and_shown_without_the_text() -> None:
    assert Position("f", 2, 10, "one text") == Position("f", 2, 10, "another")
    assert len({Position("f", 2, 10, "one text"), Position("f", 2, 10)}) == 1
    assert sorted([Position("f", 10, 1), Position("f", 2, 10), Position("f", 2, 9)])[0] == Position("f", 2, 9)
    assert "secret" not in repr(Position("f", 1, 1, "secret"))
