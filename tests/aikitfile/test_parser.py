"""The keys of an aikitfile: what is refused, what AIKit ignored, and where it stands."""

from __future__ import annotations

import json

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError, Diagnostic, Severity

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"
# the two have different texts
TEMPLATES = "    promptTemplates: [{{name: {}, template: x}}, {{name: {}, template: y}}]\n"
SHA = "1" * 64


def said(text: str) -> tuple[Diagnostic, ...]:
    """Everything that is said about a text."""
    try:
        return parse(text.encode(), "f")[1]
    except AikitError as failed:
        return failed.diagnostics


def with_models(more: str = "") -> str:
    return f"{HEAD}models:\n  - {{name: m, source: m.gguf}}\n{more}"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "1:1", "the file is empty: begin with `apiVersion: v1alpha1`"),
        ("- a\n", "1:1", "an aikitfile is a mapping"),
        (HEAD + MODEL + "backend: [x]\n", "5:1", "did you mean `backends`?"),
        (HEAD + MODEL + "Debug: true\n", "5:1", "did you mean `debug`?"),
        (HEAD + MODEL + "runtime: CUDA\n", "5:10", "did you mean `cuda`?"),
        (HEAD + MODEL + "backends: [exlama2]\n", "5:12", "did you mean `exllama2`?"),
        (HEAD + MODEL + "    sha256: " + SHA + "\n", "5:13", "here it is checked"),
        (HEAD + MODEL + "    sha256: sha256:" + SHA + "\n", "5:13", f"write `{SHA}`"),
        (HEAD + MODEL + "    sha256: abc\n", "5:13", "it has 3"),
        (HEAD + MODEL.replace("m.gguf", "hf://a/b") + "    sha256: " + SHA + "\n", "5:13", "which one sha256 cannot pin"),
        (HEAD + MODEL.replace("m.gguf", "."), "4:13", "own folder"),
        (HEAD + MODEL + TEMPLATES.format("a/b", "a/./b"), "5:56", "the template lands on /models/a/b.tmpl, as the template on line 5 does"),
        (HEAD + MODEL.replace("m.gguf", "m.tmpl") + TEMPLATES.format("x", "./m"), "5:54", "the template lands on /models/m.tmpl, as the model on line 4 does"),
        (HEAD + MODEL.replace("m.gguf", "m.tmpl") + TEMPLATES.format("x", "m.tmpl/y"), "5:54", "needs a folder where line 4 has a file"),
        (HEAD + MODEL.replace("name: m", 'name: "a\\eb"'), "3:11", "the model's name holds the character U+001B"),
        (HEAD + MODEL + TEMPLATES.format("x", "../y"), "5:54", "the template's name"),
        (HEAD + MODEL + TEMPLATES.format("x", "y/"), "5:54", "ends with `/`"),
        (HEAD + MODEL + 'config: "a\\\\00b"\nloadToMemory: ["\\0"]\n', "6:16", "U+0000"),
    ],
)  # fmt: skip
def test_what_is_found_and_where(text: str, place: str, says: str) -> None:
    found = [finding for finding in said(text) if says in finding.message]
    assert [str(finding.at) for finding in found] == [f"f:{place}"], said(text)


def test_all_errors_and_the_warnings_before_them_in_the_order_of_the_file() -> None:
    text = f"colour: red\napiVersion: v2\ndebug: 'x'\n{MODEL}    sha256: z\nruntime: avx9\n"
    assert [(finding.code, finding.at and finding.at.line) for finding in said(text)] == [
        ("unknown-key", 1),
        ("api-version", 2),
        ("wrong-type", 3),
        ("sha256", 7),
        ("runtime", 8),
    ]


def test_of_thousands_of_mistakes_the_first_hundred_are_told_and_the_rest_counted() -> None:
    found = said(with_models(f"backends: [{', '.join(['x'] * 3000)}]\n" + "".join(f"k{n}: 1\n" for n in range(300))))
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    assert (len(found), len(errors)) == (202, 101)
    assert [finding.message for finding in found if finding.code == "more"] == [
        "and 2900 more like these",
        "and 200 more like these",
    ]
    templates = "".join(f"    - {{name: t{n}, template: t}}\n" for n in range(300))
    found = said(f"{HEAD}{MODEL}    promptTemplates:\n{templates}")
    assert found[-1].message == "and at least 100 more like these"  # their review ends there


# Input, and the codes of what is said about it: an empty set is silence. The comments are AIKit's words.
VALIDATION = {
    "empty": ("", {"no-api-version"}),  # apiVersion is not defined
    "no apiVersion": ("models: []", {"no-api-version", "no-models"}),
    "another apiVersion": (with_models().replace("v1alpha1", "v2"), {"api-version"}),  # … is not supported
    "no models": ("apiVersion: v1alpha1", {"no-models"}),  # no models defined, up to v0.12.2
    "a runner image": ("apiVersion: v1alpha1\nbackends: [llama-cpp]", {"no-models"}),  # accepted from v0.21.0
    "unknown keys": (with_models("colour: red\n"), {"unknown-key"}),  # ignored
    "keys are case-sensitive": (with_models("Debug: true\n"), {"unknown-key"}),  # ignored
    "double keys": (with_models("debug: no\ndebug: yes\n"), {"duplicate-key"}),  # the last counts
    "debug in quotes": (with_models('debug: "true"\n'), {"wrong-type"}),
    "debug as a number": (with_models("debug: 1\n"), {"wrong-type"}),
    "backends as a text": (with_models("backends: exllama\n"), {"wrong-type"}),  # no datasets defined
    "config as a map": (with_models("config: {a: b}\n"), {"wrong-type"}),
    "config as a list": (with_models("config: [a]\n"), {"wrong-type"}),
    "a byte order mark": ("\ufeff" + with_models(), set()),
    "Windows line ends": (with_models().replace("\n", "\r\n"), set()),
    "several documents": (with_models() + "---\nx: y\n", {"several-documents"}),  # the first counts
    "an anchor": (with_models("backends: &a [llama-cpp]\nloadToMemory: [m]\n"), set()),
    "unknown backend": (with_models("backends: [x]\n"), {"backend"}),  # backend x is not supported
    "unknown runtime": (with_models("runtime: x\n"), {"runtime"}),  # runtime x is not supported
    "an empty runtime": (with_models("runtime: ''\n"), set()),
    "runtimes of later versions": (with_models("runtime: applesilicon\n"), {"runtime"}),
    "mamba": (with_models("backends: [mamba]\n"), {"backend"}),
    "diffusers": (with_models("backends: [diffusers]\n"), {"backend"}),
    "vllm": (with_models("backends: [vllm]\n"), {"backend"}),
    "llama-cpp": (with_models("backends: [llama-cpp]\n"), set()),
    "two backends": (with_models("runtime: cuda\nbackends: [stablediffusion, exllama2]\n"), set()),
    "the same backend twice": (with_models("backends: [stablediffusion, stablediffusion]\n"), {"duplicate-backend"}),
    "fine-tuning": ("apiVersion: v1alpha1\nbaseModel: x\ndatasets: []\n", {"fine-tuning"}),
    "loadToMemory": (with_models("loadToMemory: [m]\n"), set()),
    "loadToMemory with a comma": (with_models("loadToMemory: ['a,b']\n"), {"load-to-memory"}),
    "loadToMemory with a backslash": (with_models("loadToMemory: ['a\\b']\n"), {"load-to-memory"}),
    "loadToMemory twice": (with_models("loadToMemory: [m, m]\n"), {"load-to-memory"}),
    "loadToMemory of nothing": (with_models("loadToMemory: ['']\n"), {"load-to-memory"}),
    "no source": ("apiVersion: v1alpha1\nmodels: [{name: m}]", {"no-source"}),  # the whole build context
    "an empty source": ("apiVersion: v1alpha1\nmodels: [{name: m, source: ''}]", {"source"}),
    "no name": ("apiVersion: v1alpha1\nmodels: [{source: m.gguf}]", {"no-name"}),
    "an empty template": (with_models().replace("}", ", promptTemplates: [{name: t}]}"), {"empty-template"}),
    "two models on one path": (
        "apiVersion: v1alpha1\nmodels: [{name: a, source: m.gguf}, {name: b, source: w/m.gguf}]",  # the last one
        {"collision"},
    ),
}


@pytest.mark.parametrize("what", VALIDATION)
def test_validation(what: str) -> None:
    text, expected = VALIDATION[what]
    assert {finding.code for finding in said(text)} == expected


def test_one_note_says_how_escapes_were_read_in_all_texts() -> None:
    texts = [{"name": f"t{n}", "template": '{{if eq .R \\"a\\"}}x{{end}}'} for n in range(5)]
    models = [{"name": "m", "source": "m.gguf", "promptTemplates": texts}]
    (note,) = [f for f in said(json.dumps({"apiVersion": "v1alpha1", "models": models})) if f.code == "escapes"]
    assert "undone in template `t0` (line 1), template `t1` (line 1), template `t2` (line 1) and 2 more" in note.message


def test_a_text_that_escapes_turn_into_half_of_nothing_is_refused_for_what_nix_cannot_hold() -> None:
    (problem,) = said(with_models('config: "a\\0b"\n'))
    assert (problem.code, problem.severity) == ("nul", Severity.ERROR)
