"""JSON that can be read and cannot be used."""

from __future__ import annotations

import pytest

from aikit_nix.base import strict_json


def test_what_json_says() -> None:
    assert strict_json.parse('{"a": ["é", 1, null, "\\ud83d\\ude00"]}'.encode()) == {"a": ["é", 1, None, "😀"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"[" * 100_000,
        b"NaN",
        b'{"a": -Infinity}',
        "[1]".encode("utf-16"),
        b"\xef\xbb\xbf[]",
        b'{"a":' * 100_000,
    ],
)
def test_all_else_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|codec|nests too deep|is no number|BOM"):
        strict_json.parse(data)


@pytest.mark.parametrize(
    "data", [b'{"a": 1, "a": 1}', b'[{"x": {"config": 1, "Config": 2}}]', b'{"disk": 1, "di\\u017fk": 2}']
)
def test_a_key_that_is_there_twice_is_refused(data: bytes) -> None:
    """Python and Go take the last, others the first; Go folds the case."""
    with pytest.raises(ValueError, match=r"it says '.*' twice"):
        strict_json.parse(data)
