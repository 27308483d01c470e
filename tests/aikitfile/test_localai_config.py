"""The aikitfile's config, read once with positions."""

from __future__ import annotations

import json
import textwrap

import pytest

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.localai_config import Config
from aikit_nix.aikitfile.parser import parse
from aikit_nix.base import diagnostics
from aikit_nix.base.errors import AikitError, Position

HEAD = "apiVersion: v1alpha1\nmodels:\n  - {name: m, source: m.gguf}\n"


def read(config: str, header: str = "config: |\n") -> Config:
    text = HEAD + header + textwrap.indent(textwrap.dedent(config), "  ")
    found = localai_config.read(parse(text.encode(), "f.yaml")[0])
    assert found
    return found


def errors(config: str) -> list[str]:
    return [str(error) for error in read(config).errors]


def test_values_have_a_dotted_key_and_their_place() -> None:
    (entry,) = read(
        """\
        - name: chat
          context_size: 4_096
          parameters:
            model: m.gguf
            temperature: .5
          template: {chat: t, use_tokenizer_template: on}
          stopwords: [a, "b"]
          roles: {user: "U:"}
        """
    ).entries
    assert (entry.name, entry.words("parameters.model")) == ("chat", "m.gguf")
    values = entry.values
    assert values["context_size"].integer() == 4096
    assert values["context_size"].at == Position("f.yaml", 6, 19)
    assert values["parameters.temperature"].number() == 0.5
    assert values["parameters.temperature"].at == Position("f.yaml", 9, 20)
    assert values["template.use_tokenizer_template"].boolean() is True
    assert values["stopwords"].texts() == ("a", "b")
    assert values["roles"].text_map() == {"user": "U:"}
    assert [value.node.text for value in entry.templates] == ["t"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("- name: a\n- name: b\n  context_size: [1, 2]\n", "f.yaml:7:19: config: context_size must be a whole number, not a list"),
        ('- name: a\n  context_size: "4096"\n', "f.yaml:6:19: config: context_size must be a whole number, not the text `4096`"),
        ("- name: a\n  context_size: many\n", "f.yaml:6:19: "),
        ("- {name: a, threads: '1'}\n", "f.yaml:5:24: config: threads must be a whole number"),
        ("- name: a\n  embeddings: 3\n", "f.yaml:6:17: config: embeddings must be true or false, not the text `3`"),
        ("- name: a\n  parameters:\n    temperature: .inf\n", "f.yaml:7:20: config: parameters.temperature must be a number"),
        ("- name: a\n  parameters:\n    top_p: .nan\n", "f.yaml:7:14: "),
        ("- name: a\n  parameters: [1]\n", "f.yaml:6:17: config: parameters must be a map, not a list"),
        ("- name: [a]\n", "f.yaml:5:11: config: name must be a text"),
        ("- name: a\n  stopwords: x\n", "f.yaml:6:16: config: stopwords must be a list of texts"),
        ("- name: a\n  roles: [x]\n", "f.yaml:6:12: config: roles must be a map of texts"),
        ("- name: a\n  name: b\n", "f.yaml:6:5: config: `name` stands in this map already"),
        ("- name: a\n  mmproj: ../x\n", "f.yaml:6:13: config: mmproj must stay below /models"),
        ("- name: a\n  parameters: {model: /etc/x}\n", "f.yaml:6:25: config: parameters.model must stay below /models"),
        ("- name: a\n  <<: 3\n", "f.yaml:6:9: config: `<<` merges maps"),
        ("- name: a\n  ? [x]\n  : 1\n", "f.yaml:6:7: config: a key must be a word"),
        ("- name: a\n x: 1\n", "f.yaml:6:4: the server cannot read this config"),
        ("- name: [\n", "the server cannot read this config"),
        ("name: a\n", "f.yaml:4:9: the config is not a list"),
        ("hello\n", "f.yaml:4:9: the config is not a list"),
        ("- 1\n", "f.yaml:5:5: the config is not a list"),
        ('- name: "a\\0b"\n', "f.yaml:5:11: config: name holds the character U+0000"),
        ("- threads: 0x" + "f" * 5000 + "\n", "f.yaml:5:14: config: threads must be a whole number"),
        ("- threads: " + "9" * 5000 + "\n", "f.yaml:5:14: config: threads must be a whole number"),
        ("- threads: 99999999999999999999\n", "f.yaml:5:14: config: threads must be a whole number"),
        ("- " * 80 + "x\n", "levels of nesting"),
        ("- a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"  {b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)), "all aliases counted"),
    ],
)  # fmt: skip
def test_what_localai_could_not_read_is_an_error_at_its_place(config: str, said: str) -> None:
    (error,) = errors(config)
    assert said in error
    assert error.startswith("error: f.yaml:")
    with pytest.raises(AikitError):
        read(config).require()


def test_all_errors_at_once() -> None:
    assert [error.split(": ")[1] for error in errors("- threads: x\n- embeddings: x\n  mmap: z\n- 3\n")] == [
        "f.yaml:5:14",
        "f.yaml:6:17",
        "f.yaml:7:11",
        "f.yaml:8:5",
    ]


@pytest.mark.parametrize(
    ("written", "number"),
    [("0x10", 16), ("010", 8), ("0o10", 8), ("0b11", 3), ("-1", -1), ("1_000", 1000), ("2048.0", 2048), ("1e3", 1000)],
)
def test_numbers_are_read_as_localai_reads_them(written: str, number: int) -> None:
    (entry,) = read(f"- threads: {written}\n").require()
    assert entry.values["threads"].integer() == number


def test_nulls_are_absent_and_merges_are_taken_in() -> None:
    one, two = read("- &base\n  name: a\n  threads: 2\n  mmap:\n- <<: *base\n  name: b\n").require()
    assert set(one.values) == {"name", "threads"}
    assert (two.name, two.values["threads"].integer()) == ("b", 2)


def test_an_empty_config_has_no_entries() -> None:
    assert read("# nothing\n").require() == ()


def json_of(mapping: str) -> object:
    (entry,) = read(f"- chat_template_kwargs: {mapping}\n").require()
    return json.loads(entry.values["chat_template_kwargs"].json())


def test_a_map_becomes_json() -> None:
    written = "{a: true, b: [1, 0x10, 1.5, ~], c: 2024-01-01, d: '1', e: yes, f: {ü: x}, 1: 2}"
    assert json_of(written) == {
        "a": True, "b": [1, 16, 1.5, None], "c": "2024-01-01T00:00:00Z", "d": "1", "e": "yes", "f": {"ü": "x"}, "1": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("{a: .nan}", "holds .nan, which JSON cannot say"),
        ("{a: -.inf}", "holds -.inf"),
        ('{a: "\\0"}', "character U.0000"),
        ("{[a]: 1}", "a list for a key"),
        ("{a: '" + "x" * 100_001 + "'}", "100000 characters"),
    ],
)
def test_what_json_cannot_say_is_refused(mapping: str, said: str) -> None:
    with pytest.raises(AikitError, match=said):
        json_of(mapping)


def test_a_long_text_that_aliases_repeat_is_refused_before_it_is_built() -> None:
    (entry,) = read(
        "- x: &x '" + "y" * 1000 + "'\n  chat_template_kwargs: {a: [" + ",".join(["*x"] * 5000) + "]}\n"
    ).entries
    with pytest.raises(AikitError, match="100000 characters"):
        entry.values["chat_template_kwargs"].json()


def test_other_styles_than_a_literal_block_point_at_the_configs_beginning() -> None:
    found = localai_config.read(parse((HEAD + 'config: "- name: [a]"\n').encode(), "f.yaml")[0])
    assert found
    assert [error.at for error in found.errors] == [Position("f.yaml", 4, 9)]


def test_it_points_behind_escapes() -> None:
    (error,) = errors('- name: \\"a\\"\n  stopwords: [\\"b\\"]\n  roles: {\\"user\\": [x]}\n')
    assert ": f.yaml:7:12: " in error


def test_what_is_read_of_a_long_line_costs_no_more_than_its_length() -> None:
    """Each of these took minutes: a place in a line was looked for from the line's beginning, merged maps were copied."""
    count = 30_000
    wrong = read("[" + ",".join(f'{{"threads":"x{number}"}}' for number in range(count)) + "]").errors
    assert len(wrong) == count
    assert wrong[-1].at is not None
    assert wrong[-1].at.column > 500_000
    assert diagnostics.text(wrong[-50:]).count("^") >= 50
    bare = read("[" + ",".join(["a"] * count) + "]").errors
    assert len({error.at for error in bare}) == count
    (entry,) = read("- <<: [" + ",".join(f"{{k{number}: 1}}" for number in range(count)) + "]\n").entries
    assert len(entry.values) == count


def test_of_merged_maps_the_first_counts() -> None:
    (entry,) = read("- {<<: [{name: a, alias: x}, {name: b, seed: 1}], seed: 2}\n").entries
    assert {key: value.node.text for key, value in entry.values.items()} == {"name": "a", "alias": "x", "seed": "2"}
