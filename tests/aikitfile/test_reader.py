"""Values as yaml.v2 takes them, and what is said of the others."""

from __future__ import annotations

import pytest

from aikit_nix.aikitfile import reader, yamltree
from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.reader import Reader
from aikit_nix.aikitfile.types import Aikitfile

KNOWN = dict.fromkeys("abcdef", "")


def read(text: str) -> tuple[Reader, dict[str, reader.Pair]]:
    root, _ = yamltree.compose(text, "f")
    assert root
    made = Reader("f", [])
    return made, made.fields(root, KNOWN, "a test")


def values(text: str) -> dict[str, str]:
    return {name: value.text for name, (_, value) in read(text)[1].items()}


def said(made: Reader) -> list[str]:
    return [str(finding) for finding in made.found]


def parse_text(text: str) -> Aikitfile:
    return parse(text.encode(), "aikitfile.yaml")[0]


def with_models(more: str) -> str:
    return f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: m.gguf}}\n{more}"


@pytest.mark.parametrize(
    ("line", "debug"),
    [("", False), ("debug:", False), *((f"debug: {yes}", True) for yes in ("true", "yes", "on", "Yes", "ON"))],
)
def test_booleans_are_yaml_1_1(line: str, debug: bool) -> None:
    assert parse_text(with_models(line)).debug is debug


@pytest.mark.parametrize("text", ["name: 1e3", "name: yes", "name: 0x10", "name: '1'", "name: 2001-01-01"])
def test_scalars_of_any_type_are_their_letters(text: str) -> None:
    parsed = parse_text(f"apiVersion: v1alpha1\nmodels:\n  - {text}\n    source: m.gguf\n")
    assert parsed.models[0].name.value == text.removeprefix("name: ").strip("'")


def test_anchors_and_merges() -> None:
    parsed = parse_text(
        "apiVersion: v1alpha1\nmodels:\n"
        "  - &base {name: a, source: a.gguf, promptTemplates: [{name: t, template: '{{.Input}}'}]}\n"
        "  - {<<: *base, name: b, source: b.gguf, promptTemplates: [{name: u, template: x}]}\n"
    )
    assert [(model.name.value, model.path, model.prompt_templates[0].path) for model in parsed.models] == [
        ("a", "/models/a.gguf", "/models/t.tmpl"),
        ("b", "/models/b.gguf", "/models/u.tmpl"),
    ]


def test_of_double_keys_the_last_counts_and_it_is_said() -> None:
    made, fields = read("a: 1\nb: 2\na: 3\n")
    assert fields["a"][1].text == "3"
    assert said(made) == ["warning: f:3:1: `a` stands on line 1 already: the last one counts"]


def test_a_mappings_own_keys_win_over_merged_ones_and_the_first_merged_over_the_next() -> None:
    text = "a: &x {c: 1, d: 1, e: 1}\nb: &y {d: 2, e: 2, f: 2}\ne: 3\n<<: [*x, *y]\n"
    assert {name: value for name, value in values(text).items() if name > "b"} == {
        "c": "1",
        "d": "1",
        "e": "3",
        "f": "2",
    }


def test_what_is_merged_may_merge_itself_and_is_read_once() -> None:
    links = "".join(f"- &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], b: {n}, b: {n}}}\n" for n in range(1, 5))
    root, _ = yamltree.compose(f"- &m0 {{a: 0}}\n{links}- {{<<: *m4}}\n", "f")
    assert root
    made = Reader("f", [])
    fields = made.fields(root.items[-1], KNOWN, "a test")
    assert {name: value.text for name, (_, value) in fields.items()} == {"a": "0", "b": "4"}
    assert len(made.found) == 4


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\n<<: 3\n", "error: f:2:5: `<<` merges mappings, not the text `3`"),
        ("a: 1\n<<: [{b: 1}, [c]]\n", "error: f:2:14: `<<` merges mappings, not a list"),
        ("? [a]\n: 1\n", "error: f:1:3: a key must be a word, not a list"),
        ("'<<': {a: 1}\n", "warning: f:1:1: `<<` is not a key of a test: ignored, as by AIKit"),
        ("quux: 1\n", "warning: f:1:1: `quux` is not a key of a test: ignored, as by AIKit"),
    ],
)
def test_a_key_that_is_none(text: str, problem: str) -> None:
    assert said(read(text)[0]) == [problem]


@pytest.mark.parametrize("value", ["", "~", "null", "Null"])
def test_null_is_absent(value: str) -> None:
    made, fields = read(f"a: {value}\n")
    assert made.text(fields["a"], "a") is None
    assert list(made.list_of(fields["a"], "a", "x")) == []
    assert made.boolean(fields["a"], "a") is False
    assert reader.absent(fields["a"])
    assert said(made) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[x]", "error: f:1:4: a must be a text, not a list"),
        ("{x: y}", "error: f:1:4: a must be a text, not a mapping"),
        ('"x\\0"', "error: f:1:4: a holds the character U+0000, which no file and no Nix string can hold: remove it"),
    ],
)
def test_what_is_no_text_is_an_error_at_its_place(value: str, problem: str) -> None:
    made, fields = read(f"a: {value}\n")
    assert made.text(fields["a"], "a") is None
    assert said(made) == [problem]


def test_half_of_a_surrogate_pair_is_no_text_even_where_the_yaml_parser_takes_it() -> None:
    made, fields = read("a: x\n")
    key, value = fields["a"]
    value.text = "\ud800"
    assert made.text((key, value), "a") is None
    assert "half of a surrogate pair" in said(made)[0]


def test_who_forgot_the_bar_of_a_block_is_told() -> None:
    made = Reader("f", [])
    root, _ = yamltree.compose("config:\n  - name: x\n", "f")
    assert root
    made.text(root.pairs[0], "config")
    assert "write `config: |` and indent the text below it" in said(made)[0]


def test_long_texts_are_cut_in_messages() -> None:
    assert reader.short("x" * 60) == "x" * 60
    assert reader.short("x" * 61) == "x" * 57 + "…"
    made, fields = read(f"debug: 1\na: {'x' * 1000}\n")
    made.boolean(fields["a"], "a")
    assert all(len(finding) < 150 for finding in said(made))
