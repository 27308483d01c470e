"""Properties of the language that hold for any input.

`make fuzz` runs these for ten minutes and prints how many inputs they saw.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aikit_nix.aikitfile import escapes as compat
from aikit_nix.aikitfile import fmt, gotemplate
from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base import diagnostics
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import plan
from aikit_nix.sources import gguf
from support.pins import pinned

# A busy machine is no failure.
SHA = "1" * 64
# Pieces that the code treats specially: random letters would hardly ever make one.
PIECES = st.sampled_from(
    [*'\\"\'`$:#-?*&!|>{}[]%@~,\n\t\r ', "\\n", '\\"', "\\\\", "\\0101", "\\c", "{{", "}}", "{{- ", " -}}", "{{/*", "*/}}", '{{if eq .R \\"a\\"}}', "{{end}}", "{{.Input}}", "<<", "---\n", "...\n", "\ufeff", "\x85", "\u2028", "é", "日", "\x1b", "\x00", "apiVersion", "v1alpha1", "models", "name", "source", "sha256", "config", "promptTemplates", "debug: yes\n", "https://h.example/m.gguf", "huggingface://a/b/c", "oci://x", "../", "%2F", "%zz", "&a ", "*a", "!!str ", "|\n  ", SHA]
)  # fmt: skip
SOUP = st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join)
# What a YAML file and a Nix string can carry: everything but NUL and half surrogates.
TEXTS = (st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | SOUP).map(
    lambda text: text.replace("\0", "")
)


def json_file(template: str, config: str | None = None) -> bytes:
    """An aikitfile (JSON is YAML) that carries any text in double quotes."""
    model: dict[str, Any] = {"name": "m", "source": "m.gguf"}
    model["promptTemplates"] = [{"name": "t", "template": template}]
    return json.dumps({"apiVersion": "v1alpha1", "models": [model], "config": config}).encode()


def texts(parsed: Aikitfile) -> list[str]:
    # most of these configs are none that a server could read
    planned, _ = plan.make(replace(pinned(parsed), config=None), plan.Options())
    assert parsed.config
    return [*(file["text"] for file in json.loads(planned.to_json())["files"]), parsed.config.value]


# JSON writes what is beyond U+FFFF as two escapes, which YAML reads as halves; YAML's \U says it at once.
def yaml_string(text: str) -> str:
    return "".join(f"\\U{ord(c):08x}" if ord(c) > 0xFFFF else json.dumps(c)[1:-1] for c in text)


@given(TEXTS.filter(bool), TEXTS.filter(bool))
def test_any_string_survives_verbatim(template: str, config: str) -> None:
    data = (
        "apiVersion: v1alpha1\nmodels:\n  - {name: m, source: m.gguf, promptTemplates: [{name: t, template: "
        f'"{yaml_string(template)}"}}]}}\nconfig: "{yaml_string(config)}"\n'
    )
    parsed, _ = parse(data.encode(), "f", Escapes.VERBATIM)
    assert sorted(texts(parsed)) == sorted([template, config])


@given(TEXTS.filter(lambda text: text.strip() != "" and text.isprintable()))
def test_any_line_survives_in_a_literal_block(line: str) -> None:
    data = f"apiVersion: v1alpha1\nmodels: [{{name: m, source: m.gguf}}]\nconfig: |2\n  {line}\n  end\n"
    parsed, _ = parse(data.encode(), "f", Escapes.VERBATIM)
    assert texts(parsed) == [f"{line}\nend\n"]


def check_everything(data: bytes) -> None:
    """All that the commands do with a file; only AikitError may come out."""
    try:
        parsed, found = parse(data, "f")
    except AikitError as failed:
        found = failed.diagnostics
    else:
        try:
            plan.make(pinned(parsed), plan.Options())[0].to_json()
            plan.make(pinned(parsed), plan.Options(engine=plan.Engine.LLAMA_SERVER))
        except AikitError:
            pass
    assert all(finding.at is None or finding.at.line >= 1 <= finding.at.column for finding in found)
    shown = diagnostics.text(found)
    assert shown.replace("\n", "").isprintable()
    assert len(found) <= shown.count("\n") <= 3 * len(found)
    json.loads(diagnostics.json(found))
    rules = json.loads(diagnostics.sarif(found))["runs"][0]["tool"]["driver"]["rules"]
    assert all(rule["shortDescription"]["text"].endswith(".") for rule in rules), rules


@given(st.binary(max_size=300))
def test_no_bytes_make_a_traceback(data: bytes) -> None:
    check_everything(data)


@given(SOUP)
def test_no_text_makes_a_traceback(text: str) -> None:
    check_everything(text.encode("utf-8", "surrogatepass"))


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | SOUP | PIECES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PIECES, inner, max_size=4),
    max_leaves=12,
)
FILES = st.fixed_dictionaries(
    {"apiVersion": st.just("v1alpha1")},
    optional={
        "debug": VALUES,
        "runtime": st.sampled_from(["avx", "cuda", "rocm", ""]) | VALUES,
        "backends": st.lists(st.sampled_from(["llama-cpp", "stablediffusion", "exllama2"]) | VALUES, max_size=2)
        | VALUES,
        "models": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from(["m", "a/b"]) | VALUES,
                    "source": st.sampled_from(["m.gguf", "https://h.example/m"]) | VALUES,
                    "sha256": st.just(SHA) | VALUES,
                    "promptTemplates": st.lists(
                        st.fixed_dictionaries({}, optional={"name": VALUES, "template": VALUES}), max_size=2
                    )
                    | VALUES,
                },
            )
            | VALUES,
            max_size=3,
        )
        | VALUES,
        "config": VALUES.map(json.dumps) | VALUES,
        "loadToMemory": VALUES,
    },
)


@given(FILES)
def test_no_aikitfile_makes_a_traceback(value: dict[str, Any]) -> None:
    check_everything(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(SOUP, st.sampled_from(["template", "config"]), st.sampled_from(Escapes))
def test_escapes_never_add_what_was_not_there(text: str, kind: compat.Kind, escapes: Escapes) -> None:
    resolved = compat.resolve(text, kind, escapes)
    if "\\" not in text or escapes is Escapes.VERBATIM:
        assert resolved.text == text
    assert len(resolved.text.encode("utf-8", "replace")) <= len(text.encode("utf-8", "replace"))
    assert resolved == compat.resolve(text, kind, escapes)
    if escapes is Escapes.AUTO:
        assert compat.brokenness(resolved.text, kind) <= compat.brokenness(text, kind)


@given(SOUP)
def test_template_defects_stand_within_the_text(text: str) -> None:
    assert all(0 <= defect.offset < len(text) for defect in gotemplate.defects(text))


@given(FILES)
def test_parsing_and_planning_are_deterministic(value: dict[str, Any]) -> None:
    def outcome() -> object:
        try:
            parsed, found = parse(json.dumps(value).encode(), "f")
            return plan.make(pinned(parsed), plan.Options()), found
        except AikitError as failed:
            return failed.diagnostics

    assert outcome() == outcome()


COMMENTS = st.sampled_from(["", " # why", "   #  not so"])
LINES = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=12)


@st.composite
def written_files(draw: st.DrawFn) -> str:
    """Valid aikitfiles as people write them: comments, odd indentation, block texts."""
    lines = [
        *draw(st.lists(st.sampled_from(["# top", "#syntax=x", ""]), max_size=2)),
        f"apiVersion:  v1alpha1{draw(COMMENTS)}",
    ]
    step, deep = " " * draw(st.integers(0, 4)), " " * draw(st.integers(1, 5))
    lines += [f"debug: {draw(st.sampled_from(['yes', 'off', 'true']))}{draw(COMMENTS)}", f"models:{draw(COMMENTS)}"]
    for number in range(draw(st.integers(1, 3))):
        lines += [
            f"{step}# model {number}",
            f"{step}-   name: 'm{number}'{draw(COMMENTS)}",
            f"{step}    source: m{number}.gguf",
        ]
        if draw(st.booleans()):
            lines += ["", f"{step}    promptTemplates:", f"{step}    {deep}- name: t{number}"]
            lines += [f"{step}    {deep}  template: {draw(st.sampled_from(['|', '|-', '|+', '>']))}"]
            lines += [f"{step}    {deep}      {line}" for line in ["first", *draw(st.lists(LINES, max_size=3))]]
    if draw(st.booleans()):
        lines += [
            f"config: |{draw(COMMENTS)}",
            *(f"{deep}{line}" for line in ["- name: m0", *draw(st.lists(LINES, max_size=3))]),
        ]
    return draw(st.sampled_from(["\n", "\r\n"])).join([*lines, "# the end", ""])


@given(written_files())
def test_fmt_keeps_the_meaning_and_the_comments(text: str) -> None:
    try:
        before = fmt.meaning(text, "f", Escapes.VERBATIM)
    except AikitError:  # a line of the block happened to end it
        return
    after = fmt.formatted(text, "f")
    assert fmt.meaning(after, "f", Escapes.VERBATIM) == before
    assert fmt.formatted(after, "f") == after
    assert after.count("#") == text.count("#")


@given(SOUP)
def test_fmt_formats_or_refuses(text: str) -> None:
    with contextlib.suppress(AikitError):
        fmt.formatted(f"apiVersion: v1alpha1\nmodels: [{{name: m, source: m.gguf}}]\nconfig: {text}\n", "f")


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda data: b"GGUF\3\0\0\0" + bytes(8) + data))
def test_no_bytes_upset_the_gguf_reader(data: bytes) -> None:
    import io

    try:
        header = gguf.read(io.BytesIO(data))
    except gguf.NotGgufError:
        return
    assert header.context_length is None or isinstance(header.context_length, int)
