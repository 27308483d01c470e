"""YAML as a tree with places: what is refused, what is bounded, and that the slower parser says the same."""

from __future__ import annotations

import pytest
import yaml

from aikit_nix.aikitfile import yamltree
from aikit_nix.aikitfile.yamltree import Node
from aikit_nix.base.errors import AikitError


def tree(text: str) -> Node:
    root, _ = yamltree.compose(text, "f")
    assert root
    return root


def refusal(text: str) -> str:
    with pytest.raises(AikitError) as refused:
        yamltree.compose(text, "f")
    return str(refused.value)


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: not every PyYAML has the one in C."""
    if request.param == "python":
        monkeypatch.setattr(yamltree, "_Loader", yaml.SafeLoader)
    return str(request.param)


def test_nodes_know_their_kind_their_style_and_both_ends() -> None:
    ((key, value),) = tree("a:\n  - 'b'\n  - |\n    c\n").pairs
    assert (key.kind, key.text, key.style, str(key.at), str(key.end)) == ("scalar", "a", None, "f:1:1", "f:1:2")
    assert [(item.text, item.style, str(item.at)) for item in value.items] == [
        ("b", "'", "f:2:5"),
        ("c\n", "|", "f:3:5"),
    ]


@pytest.mark.parametrize(("value", "null"), [("", True), ("~", True), ("null", True), ("'~'", False), ("!!str", False)])
def test_only_a_plain_scalar_is_null(value: str, null: bool) -> None:
    ((_, node),) = tree(f"a: {value}\n").pairs
    assert node.is_null is null


def test_an_alias_is_the_node_itself_and_counted_once_among_the_scalars() -> None:
    root = tree("a: &x [b]\nc: *x\n")
    assert root.pairs[0][1] is root.pairs[1][1]
    assert sorted(scalar.text for scalar in yamltree.scalars(root)) == ["a", "b", "c"]


def test_a_text_without_a_document_has_no_root() -> None:
    assert yamltree.compose("# nothing\n", "f") == (None, [])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("---\nb: 1\n", ["several-documents"]),
        ("--- # end\n", ["several-documents"]),
        ("---\n", []),
        ("...\n# end\n", []),
    ],
)
def test_what_follows_the_first_document_is_said_and_never_read(more: str, said: list[str]) -> None:
    root, found = yamltree.compose(f"a: 1\n{more}", "f")
    assert root
    assert [key.text for key, _ in root.pairs] == ["a"]
    assert [finding.code for finding in found] == said
    assert yamltree.compose(f"a: 1\n---\n{'[' * 1000}", "f")[0]


DEEP = "- {x: &a0 [x]}\n" + "".join(f"- &a{n} [*a{n - 1}]\n" for n in range(1, 80))
WIDE = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: b: c\n", "1:5", "a value that holds `: ` needs quotes"),
        ("a:\n\tb: 1\n", "2:1", "not with tabs"),
        ("a: @b\n", "1:4", "special character"),
        ('a: 1\nb: "x\n', "2:4", "end of stream"),
        ("a: *b\n", "1:4", "no anchor &b"),
        ("&a [*a]\n", "1:5", "inside of what it stands for"),
        ("a: !!python/object:os.system x\n", "1:4", "YAML tag"),
        ("a: x\0y\n", "1:5", "the character U+0000 may not stand in YAML"),
        ("ä: x\x01y\n", "1:5", "the character U+0001 may not stand in YAML"),
        ("[" * 500, "1:65", "levels of nesting"),
        ("[" * 100_000, None, "levels of nesting"),  # libyaml itself refuses it since 0.2.6, at the 1000th
        ("- " * 100_000, "1:129", "levels of nesting"),
        (DEEP, "64:9", "levels of nesting"),
        (WIDE, None, "all aliases counted"),
        ("a: &a " + "x" * 1_000_000 + f"\nb: [{','.join(['*a'] * 20)}]\n", None, "all aliases counted"),
    ],
)
def test_what_is_refused_and_where(text: str, place: str | None, says: str) -> None:
    said = refusal(text)
    assert says in said
    assert said.startswith(f"error: f:{place}: " if place else "error: f:")


@pytest.mark.parametrize("text", ['a: "\\ud800"', "a: {a", "a: \ud800"])
def test_what_only_one_parser_refuses_is_no_traceback(text: str, loader: str) -> None:
    if loader == "libyaml" or "\\" not in text:
        refusal(text)
    else:
        assert tree(text).pairs[0][1].text == "\ud800"  # reader.py refuses it


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_yaml_is_read(encoding: str) -> None:
    assert yamltree.decode("é: 日\n".encode(encoding), "f") == "é: 日\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"apiVersion: \xff\n", "f:1:13: byte 0xff is not UTF-8: save the file as UTF-8"),
        (b"a: 1\nb: \xe9\n", "f:2:4: byte 0xe9 is not UTF-8"),
        (b"\xff\xfea", "byte 0x61 is not UTF-16"),
        (b"x" * (17 << 20), "f:1:1: the file has 17825792 bytes, more than 16777216"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, says: str) -> None:
    with pytest.raises(AikitError) as refused:
        yamltree.decode(data, "f")
    assert says in str(refused.value)


def test_a_quote_behind_a_backslash_moves_nothing() -> None:
    """Go's scanner takes it in double quotes, libyaml does not."""
    root, _ = yamltree.compose("a: \"it\\'s \\\\' \\'\"\nb: \"\\'\" # x\nc: 'a\\'\n", "f.yaml")
    assert root
    values = {key.text: value for key, value in root.pairs}
    assert {key: value.text for key, value in values.items()} == {"a": "it's \\' '", "b": "'", "c": "a\\"}
    assert (values["b"].end.line, values["b"].end.column) == (2, 8)
    many = "".join(f'k{number}: "\\\'"\n' for number in range(150))
    with pytest.raises(AikitError, match="too many texts in double quotes"):
        yamltree.compose(many, "f.yaml")
