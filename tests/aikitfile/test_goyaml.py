"""Scalars, maps and whole texts are what Go's yaml.v3 makes of them, where LocalAI's config is read."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.aikitfile import goyaml, localai_config, reader, yamltree
from aikit_nix.aikitfile.innertext import Text
from aikit_nix.aikitfile.localai_config import ConfigValue
from aikit_nix.base.errors import AikitError, Position

GO = shutil.which("go")
SOURCE = Path(__file__).parents[1] / "goyaml"
ZERO = {"integer": 0, "number": 0, "boolean": False, "text": "", "texts": None, "text_map": None, "json": None}
REFUSED = "!"
# What is refused here and read there: tags mean nothing in an aikitfile, and no program's argument holds U+0000
OURS = ("!", "\\0")

SCALARS = [
    "yes",
    "Yes",
    "y",
    "Y",
    "no",
    "N",
    "On",
    "OFF",
    "true",
    "TRUE",
    "tRue",
    "'true'",
    '"no"',
    "1",
    "0",
    "-1",
    "+1",
    "017",
    "0o17",
    "0O17",
    "08",
    "0x1F",
    "0X1f",
    "0b101",
    "0B11",
    "-0b11",
    "-0x1f",
    "1_000",
    "0x_ff",
    "1e3",
    "1.5",
    "4096.5",
    "-2.7",
    ".5",
    "5.",
    "+.5",
    "1E+3",
    "1e",
    ".inf",
    "-.Inf",
    ".nan",
    "1.",
    "_1",
    "1__0",
    "1e400",
    "1e19",
    "190:20",
    "0o8",
    "0b2",
    "12e03",
    "0x1p3",
    "1e-3",
    "00",
    "-0",
    "2001-01-01",
    "2001-1-2",
    "2001-01-01T00:00:00Z",
    "2001-12-14t21:59:43.10-05:00",
    "null",
    "~",
    "Null",
    "NULL",
    "nULL",
    "=",
    "<<",
    "-",
    "''",
    '"null"',
    "[]",
    "{}",
]
TEXTS = [
    "2001-12-14 21:59:43.10", "2001-12-14 21:59:43.10 -5", r'"a\/b"', r'"\x41\u263a\U0001F600\e"', r'"a\'b\"c\'"',
    r'"\\\'"', r"'\''", "[a, b]", "[1, true, ~, 2.5]", "{a: 1, b: x}", "{1: a, true: b, ~: c, 1.5: d}", "{a: .inf}", "{a: ~}",
    "{a: 2001-01-01, b: yes, c: 017, d: 0x10, e: 1_0, f: 1.0, g: 1e3, h: ~, i: [1, {j: .5}]}", '{a: "5", b: 0.1, c: 1e21, d: 1e-7}',
    "{<<: {a: 1}, b: 2}", "{<<: [{a: 1}, {a: 2, c: 3}], a: 4}", "{<<: 5}", "|\n  text\n", ">-\n  folded\n  text\n", "x\t", "\tx",
    '"x"\t# c', "x # c", "foo\tbar", "[\ta,\tb\t]", "a: b", "- x", "*x", "@x",
]  # fmt: skip
DOCUMENTS = [
    "v:\tx", "v: x\n\t\n", "v:\n\t- x", "v: x\nv: y", "base: &b {v: 5}\n<<: *b", "<<: [{v: 5}, {v: 6}]", "<<: 5\nv: 1",
    "v: x\n---\nv: y", "%YAML 1.1\n---\nv: x", "%YAML 1.2\n---\nv: x", "v: a\r\nw: b\r\n", "v : x", "v:x", "{v: x}", "",
    "a: &a [1]\nv: [*a]", "v: &x [*x]", "v: a\n b\n  c", "v: |\n a\n\tb", "v:\n  -\ta", "\tv: x",
]  # fmt: skip
PIECES = [
    "a",
    "b: c",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "'",
    '"',
    "\\'",
    "\\n",
    "#",
    "|\n",
    "&x ",
    "*x",
    "1",
    "~",
    "\t",
    "<<: ",
]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], list[dict[str, Any]]]:
    """What yaml.v3 makes of texts."""
    if GO is None:
        pytest.skip("Go is not installed")
    folder = tmp_path_factory.mktemp("go")
    built = subprocess.run(
        [GO, "build", "-o", folder / "goyaml", "."], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"yaml.v3 cannot be had: {built.stderr[-200:]}")

    def read(texts: list[str]) -> list[dict[str, Any]]:
        done = subprocess.run([folder / "goyaml"], input=json.dumps(texts).encode(), capture_output=True, check=True)
        return list(json.loads(done.stdout))

    return read


def ours(text: str) -> dict[str, Any]:
    """The same with what LocalAI's config is read by."""
    at = Position("f", 1, 1, text)
    reading = localai_config._Reading(Text(at, tuple(text.split("\n")), tuple(text.split("\n"))))
    try:
        root, _ = yamltree.compose(text, "f")
        fields = reader.merged(root, reading.odd, {}) if root and root.kind == "mapping" else {}
    except AikitError:
        return dict.fromkeys(ZERO, REFUSED)
    if reading.errors or not (root is None or root.is_null or root.kind == "mapping"):
        return dict.fromkeys(ZERO, REFUSED)
    node = fields["v"][1] if "v" in fields else None
    if node is None or node.is_null:
        return dict(ZERO)
    found: dict[str, Any] = {}
    for kind in ZERO:
        try:
            said = getattr(ConfigValue("v", node, at), kind)()
        except AikitError:
            found[kind] = REFUSED
        else:
            found[kind] = json.loads(said) if kind == "json" else list(said) if isinstance(said, tuple) else said
    return found


def test_what_is_read_is_what_yaml_v3_reads(go: Callable[[list[str]], list[dict[str, Any]]]) -> None:
    texts = [*(f"v: {scalar}" for scalar in [*SCALARS, *TEXTS]), *DOCUMENTS]
    for text, expected in zip(texts, go(texts), strict=True):
        if text != "v: -.Inf":  # Go's conversion of it to a whole number is undefined
            assert (text, ours(text)) == (text, expected)


def test_random_texts_are_read_as_yaml_v3_reads_them(go: Callable[[list[str]], list[dict[str, Any]]]) -> None:
    """Or refused here: what PyYAML's parser refuses of odd texts is an error with a place, never another meaning."""
    dice = random.Random(7)
    texts = ["v: " + "".join(dice.choices(PIECES, k=dice.randint(1, 12))) for _ in range(3000)]
    read = 0
    for text, expected in zip(texts, go(texts), strict=True):
        found = ours(text)
        if set(found.values() if all(isinstance(each, str) for each in found.values()) else "x") != {REFUSED}:
            assert (text, found) == (text, expected)
            read += 1
    assert read > 300


def test_localais_whole_gallery_is_read_as_yaml_v3_reads_it(
    go: Callable[[list[str]], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (source := os.environ.get("LOCALAI_SRC")):
        pytest.skip("LOCALAI_SRC names no tree of LocalAI")
    monkeypatch.setattr(yamltree, "MAX_VALUES", 1 << 40)
    text = (Path(source) / "gallery/index.yaml").read_text().removeprefix("---\n")
    text = f"v:\n  entries:\n{textwrap.indent(text, '    ')}"
    root, _ = yamltree.compose(text, "f")
    assert root
    (expected,) = go([text])
    assert len(expected["json"]["entries"]) > 1700
    assert goyaml.as_json(root.pairs[0][1], 1 << 40) == expected["json"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("017", "integer", 15),
        ("0O17", "integer", 15),
        ("4096.5", "integer", 4096),
        ("_1", "integer", REFUSED),
        ("Yes", "boolean", True),
        ("'true'", "boolean", REFUSED),
        (r'"a\'b"', "text", "a'b"),
        (r'"a\/b"', "text", REFUSED),
        ("x\t# c", "text", "x"),
        ("[1, ~]", "texts", ["1"]),
        ("{a: 2001-1-2, b: yes, c: 1.0}", "json", {"a": "2001-01-02T00:00:00Z", "b": "yes", "c": 1}),
        ("{a: 2001-12-14t21:59:43.10-05:00}", "json", {"a": "2001-12-14T21:59:43.1-05:00"}),
        ("{a: 2001-02-30}", "json", {"a": "2001-02-30"}),
        ("{<<: {a: 1}, b: 2}", "json", {"a": 1, "b": 2}),
        ("{<<: {a: 1}, b: 2}", "text_map", {"a": "1", "b": "2"}),
    ],
)
def test_it_is_go_without_go(text: str, kind: str, expected: object) -> None:
    """Go's own answers, seen."""
    assert ours(f"v: {text}")[kind] == expected
