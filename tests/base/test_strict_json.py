"""JSON that can be read and cannot be used."""

from __future__ import annotations

import pytest

from aikit_nix.base import strict_json


def test_what_json_says() -> None:
    assert strict_json.parse('{"a": ["é", 1, null, "\\ud83d\\ude00"]}'.encode()) == {"a": ["é", 1, None, "😀"]}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'"\\ud800"', b'{"\\udc00": 1}', b"[" * 100_000, b'{"a":' * 100_000]
)
def test_all_else_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|codec|nests too deep"):
        strict_json.parse(data)
