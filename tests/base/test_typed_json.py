"""JSON that can be read and cannot be used, and as types."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from aikit_nix.base import typed_json
from aikit_nix.base.errors import AikitError


def test_what_json_says() -> None:
    assert typed_json.parse('{"a": ["é", 1, null, "\\ud83d\\ude00"]}'.encode()) == {"a": ["é", 1, None, "😀"]}


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
        typed_json.parse(data)


@pytest.mark.parametrize(
    "data", [b'{"a": 1, "a": 1}', b'[{"x": {"config": 1, "Config": 2}}]', b'{"disk": 1, "di\\u017fk": 2}']
)
def test_a_key_that_is_there_twice_is_refused(data: bytes) -> None:
    """Python and Go take the last, others the first; Go folds the case."""
    with pytest.raises(ValueError, match=r"it says '.*' twice"):
        typed_json.parse(data)


class _Kind(Struct, rename="camel", forbid_unknown_fields=True):
    own_size: typed_json.Size
    digest: typed_json.Digest = ""
    names: tuple[str, ...] = ()
    more: dict[str, _Kind] = {}
    role: Literal["a", "b"] = "a"
    many: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(max_length=1)] = ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "it lacks 'ownSize'"),
        ([], "it is no object"),
        ({"ownSize": -1}, "$.ownSize is no size in bytes"),
        ({"ownSize": 1e99}, "$.ownSize is no size in bytes"),
        ({"ownSize": 1, "digest": "sha256:1\n"}, "$.digest is no sha256 digest"),
        ({"ownSize": 1, "names": [1]}, "$.names[0] is no text"),
        ({"ownSize": 1, "names": "a"}, "$.names is no list"),
        ({"ownSize": 1, "more": {"x": {}}}, "$.more[...] lacks 'ownSize'"),
        ({"ownSize": 1, "many": [1, 2]}, "$.many is too short or too long"),
        ({"ownSize": 1, "many": [0]}, "$.many[0] is no number that may stand there"),
        ({"ownSize": 1, "role": "c"}, "$.role cannot be 'c'"),
        ({"ownSize": 1, "colour": "red"}, "'colour' is not known"),
    ],
)
def test_what_is_of_another_type_is_said_with_its_place(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        typed_json.convert(value, _Kind)


def test_a_number_may_be_written_as_text_where_that_is_allowed() -> None:
    assert typed_json.convert({"ownSize": "7"}, _Kind, strict=False) == _Kind(7)


def test_another_version_is_said_whatever_else_there_is() -> None:
    with pytest.raises(ValueError, match="it has the format 3, this aikit-nix reads 2"):
        typed_json.versioned({"formatVersion": 3}, _Kind, 2)


def test_the_users_error_says_what_where_why_and_what_to_do() -> None:
    with pytest.raises(AikitError) as refused, typed_json.refusing("f is no lock", "run `lock`", "lock"):
        typed_json.decode(b"{}", _Kind)
    (said,) = refused.value.diagnostics
    assert (said.code, said.message) == ("lock", "f is no lock (it lacks 'ownSize'): run `lock`")


def test_what_is_read_is_written_as_it_was() -> None:
    text = (
        '{\n  "ownSize": 7,\n  "digest": "%s",\n  "names": [\n    "é"\n  ],\n  "more": {},\n  "role": "a",\n  "many": []\n}\n'
        % ("sha256:" + "1" * 64)
    )
    found = typed_json.decode(text.encode(), _Kind)
    assert typed_json.encode(found) == text
    assert typed_json.decode(typed_json.pack(found), _Kind) == found
    assert '"\\u00e9"' in typed_json.encode(found, ascii_only=True)
