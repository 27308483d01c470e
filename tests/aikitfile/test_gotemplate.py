"""The checker of Go templates, and Go itself where it is installed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from aikit_nix.aikitfile import gotemplate

GO = shutil.which("go")
TOKENS = Path(__file__).parents[1] / "gotemplate/tokens.json"

GOOD = (
    "",
    "text { } }}",
    "{{.Input}}",
    "{{- .Input -}}",
    '{{if eq .RoleName "assistant"}}a{{else if .X}}b{{else}}c{{end}}',
    "{{range $i, $t := .Types}}{{if $i}} | {{end}}{{$t}}{{end}}",
    '{{/* a comment " */}}{{- /* another */ -}}',
    '{{`{{\\"example_name\\": 1}}`}}',
    '{{ printf "%d \\" \\n \\x41 \\u00e9" (len .A) | upper }}',
    "{{ 1.5 }}{{ -3 }}{{ 0x1F }}{{ 'a' }}{{ '\\n' }}",
    '{{define "t"}}x{{end}}{{template "t" .}}{{block "b" .}}{{end}}',
    "{{with .A}}{{break}}{{end}}",
    "{{if .A}}{{if .B}}{{else}}{{end}}{{else if .C}}{{if .D}}{{else}}{{end}}{{else}}{{end}}",
    "{{\n.Input\n}}",
)
BAD = (
    '{{if eq .RoleName \\"assistant\\"}}a{{end}}',
    '{{if eq .RoleName "assistant}}a{{end}}',
    "{{if .A}}",
    "{{end}}",
    "{{else}}",
    "{{if .A}}{{else}}{{else}}{{end}}",
    "{{range .A}}{{else}}{{else}}{{end}}",
    "{{if .A}}{{else}}{{else if .B}}{{end}}",
    "{{range .A}}{{else if .B}}{{end}}",
    "{{with .A}}{{else if .B}}{{end}}",
    "{{if .A}}{{else with .B}}{{end}}",
    "{{if .A}}{{if .B}}{{end}}{{else}}{{if .C}}{{else}}{{end}}{{else}}{{end}}",
    "{{.Input",
    "{{}}",
    "{{`raw}}",
    "{{/* comment }}",
    "{{-range .A}}{{end}}",
    "{{(.A}}",
    "{{.A)}}",
    "{{ $x: 1 }}",
    '{{ "\\q" }}',
    "{{ a+b }}",
    "{{ 1a }}",
    "{{ .A? }}",
)


@pytest.mark.parametrize("text", GOOD)
def test_good_templates(text: str) -> None:
    assert gotemplate.defects(text) == ()


@pytest.mark.parametrize("text", BAD)
def test_bad_templates(text: str) -> None:
    assert gotemplate.defects(text)


def test_each_bad_action_counts_once_and_says_where() -> None:
    text = 'a {{if \\"x\\"}} b {{eq "y}}\nc {{.Z}} {{end}}'
    assert [(defect.offset, text[defect.offset :][:2]) for defect in gotemplate.defects(text)] == [
        (7, '\\"'),
        (22, '"y'),
    ]


@pytest.mark.skipif(GO is None, reason="Go is not installed")
def test_what_go_takes_is_never_called_broken(tmp_path: Path) -> None:
    chance = random.Random(1)
    tokens = json.loads(TOKENS.read_text())
    texts = ["".join(chance.choices(tokens, k=chance.randint(1, 12))) for _ in range(20_000)]
    texts += ["{{" + " ".join(chance.choices(tokens, k=chance.randint(1, 4))) + "}}" for _ in range(10_000)]
    texts += [*GOOD, *BAD]
    source = Path(__file__).parents[1] / "gotemplate/main.go"
    env = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    done = subprocess.run(
        [GO or "go", "run", source], input=json.dumps(texts).encode(), capture_output=True, env=env, check=True
    )
    verdicts = list(zip(texts, json.loads(done.stdout), strict=True))
    assert [text for text, valid in verdicts if valid and gotemplate.defects(text)] == []
    # the other way round it knows no pipelines, but most of what is broken
    broken = [text for text, valid in verdicts if not valid]
    assert sum(bool(gotemplate.defects(text)) for text in broken) > 0.9 * len(broken)
    assert [text for text, valid in verdicts[-len(BAD) :] if valid] == []


def test_a_text_that_aliases_repeat_is_read_once() -> None:
    text = "{{ end }}"
    assert gotemplate.defects(text) is gotemplate.defects(text)
