"""Go's text/template in Jinja's words: what survives, and that all else is refused by name.

That it is what Go itself renders: test_chat_template.py.
"""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aikit_nix.engines.llama_server import gojinja
from aikit_nix.engines.llama_server.gojinja import UntranslatableError, Value

FIELDS = {"Input": Value("input"), "Last": Value("last", "bool"), "Functions": Value("(tools or [])", "functions")}


def rendered(template: str, **values: object) -> str:
    made = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return made.from_string(gojinja.render(template, FIELDS)).render(**values)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {{- .Input -}} b", "aXb"),
        ("a\n{{ .Input -}}\n\n b", "a\nXb"),
        ("{{/* {{.Input}} */}}{{- /* no */ -}} a", "a"),
        ("{{if .Last}}yes{{else if .Input}}{{.Input}}{{else}}none{{end}}{{.Last}}", "Xfalse"),
        ("{{range $i, $f := .Functions}}{{if $i}}, {{end}}{{$f.Name}}{{else}}none{{end}}", "f, g"),
        ("{{with .Input}}{{.}}{{$.Input}}{{end}}", "XX"),
        ("{{if .}}a{{end}}{{not .}}{{with .Input}}{{if or $ .}}b{{end}}{{not $}}{{end}}", "afalsebfalse"),
        ('{{`{{raw}}`}}{{"\\u00e9\\n"}}', "{{raw}}é\n"),
    ],
)
def test_what_survives_means_the_same(template: str, expected: str) -> None:
    tools = [{"function": {"name": name}} for name in "fg"]
    assert rendered(template, input="X", last=False, tools=tools) == expected


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")).filter(lambda text: "{{" not in text))
@example("{% raw %}{# #}}} \\\" ' \r\n\t\0 {%- endraw -%}")
def test_text_stays_text_whatever_it_says_to_jinja(text: str) -> None:
    """What stands around the actions is untrusted, too: none of it may become code."""
    assert rendered(text) == text
    assert jinja2.Environment().from_string(f"{{{{ {gojinja.literal(text)} }}}}").render() == text


HOSTILE = (
    "{{if .Input}}" * 1000 + "{{end}}" * 1000,
    "{{" + "(" * 5000 + ".Input" + ")" * 5000 + "}}",
    "{{$a := .Input}}"
    + "".join(f"{{{{$a{n} := and $a{n - 1 if n else ''} $a{n - 1 if n else ''}}}}}" for n in range(60)),
    "{{" + " | toJson".join([".Input"] * 1) + " | toJson" * 30 + "}}",
    "{{.Input}}" * 10_000,
    '{{"' * 2000,
    "{{" + '"a"' * 5000 + "}}",
    "{{/*" * 5000,
    "{{range .Functions}}" * 30 + "{{end}}" * 30,
    "{{if .Input}}{{else}}{{else if .Input}}{{end}}",
    "{{range .Functions}}{{else if .Input}}{{end}}",
    "{{.Input" + "|trim" * 300 + "}}",  # Jinja reads parentheses by recursion, and chains of operators
    "{{if true" + "|not" * 600 + "}}{{end}}",
    '{{if eq .Input "a"' + ' "a"' * 900 + "}}{{end}}",
    "{{if and" + " true" * 700 + "}}{{end}}",
    "{{$a := .Input|trim}}" + "".join(f"{{{{$a{n + 1} := $a{n or ''}|trim}}}}" for n in range(300)),
    '{{$a := "' + "a" * 3_900 + '"}}' + "{{$a}}" * 3_000,
    "{{if eq 1 " + "1" * 5_000 + "}}{{end}}",
)


@pytest.mark.parametrize(
    "template",
    [
        "{{.Input" + "|trim" * 30 + "}}",
        '{{if eq .Input "a"' + ' "a"' * 30 + "}}{{end}}{{.Input}}",
        "{{$a := .Input}}{{$a}}",
    ],
)
def test_what_is_long_but_not_too_long_can_be_read(template: str) -> None:
    assert rendered(template, input="X") == "X"


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates_are_refused(template: str) -> None:
    with pytest.raises(UntranslatableError):
        gojinja.render(template, FIELDS)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{.Metadata}}", "the field .Metadata"),
        ("{{.Functions}}", "in its own notation"),
        ("{{template \"x\" .}}", "{{template}}"),
        ('{{define "x"}}{{end}}', "{{define}}"),
        ("{{range .Input}}{{end}}", "over something other than .Functions"),
        ("{{range .Functions}}{{range $.Functions}}{{end}}{{end}}", "inside of a"),
        ("{{$x := 1}}{{$x = 2}}", "a variable that changes"),
        ("{{$x}}", "the variable $x"),
        ('{{env "HOME"}}', "the function env"),
        ("{{now}}", "the function now"),
        ('{{printf "%v" .}}', "the function printf"),
        ("{{if .X", "broken syntax"),
        ("{{.Input .Input}}", "no function"),
        ("{{eq .Input 1}}", "the function eq"),
        ("{{range .Functions}}{{.Strict}}{{end}}", "the field .Strict"),
        ("{{index .Functions 0}}", "the function index"),
        ("{{1.5}}", "{{1.5}}"),
        ("{{'a'}}", "{{'a'}}"),
        ("{{(.Input).X}}", "{{(.Input).X}}"),
        ("{{if eq 8 010}}{{end}}", "{{eq 8 010}}"),  # octal in Go
        ('{{"\\ud800"}}', 'the string "\\ud800"'),
        ('{{"\\000"}}', 'the string "\\000"'),
    ],
)  # fmt: skip
def test_what_does_not_survive_is_named(template: str, named: str) -> None:
    with pytest.raises(UntranslatableError) as raised:
        gojinja.render(template, FIELDS)
    assert named in str(raised.value)
