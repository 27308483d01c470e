"""LocalAI's Go templates as Jinja: the same bytes as Go's, in Jinja2."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pytest

from aikit_nix.engines.llama_server import chat_template
from aikit_nix.engines.llama_server.chat_template import Prompt
from aikit_nix.engines.llama_server.gojinja import UntranslatableError

GO = shutil.which("go")

LLAMA3_MESSAGE = """\
<|start_header_id|>{{if eq .RoleName "assistant"}}assistant{{else if eq .RoleName "system"}}system\
{{else if eq .RoleName "tool"}}tool{{else if eq .RoleName "user"}}user{{end}}<|end_header_id|>

{{ if .FunctionCall -}}
Function call:
{{ else if eq .RoleName "tool" -}}
Function response:
{{ end -}}
{{ if .Content -}}
{{.Content -}}
{{ else if .FunctionCall -}}
{{ toJson .FunctionCall -}}
{{ end -}}
<|eot_id|>
"""
FUNCTIONS = """\
{{/* the tools */ -}}
You have:
{{range .Functions}}
{'name': '{{.Name}}', 'description': '{{.Description}}', 'parameters': {{toJson .Parameters}} }
{{end}}
Say <f>{{`{{"example_name": 1}}`}}</f>{{"\\n\\t\\"" }}
{{.Input }}
Call:"""

PROMPTS = {
    "a base model": Prompt(chat="{{.Input}}"),
    "nothing": Prompt(),
    "phi": Prompt(chat_message="<|{{ .RoleName }}|>\n{{.Content}}<|end|>\n", chat="{{.Input}}\n<|assistant|>\n"),
    "gemma": Prompt(
        chat_message='<start_of_turn>{{if eq .RoleName "assistant" }}model{{else}}{{ .RoleName }}{{end}}\n'
        "{{ if .Content -}}\n{{.Content -}}\n{{ end -}}<end_of_turn>\n",
        chat="{{ .Input }}\n<start_of_turn>model\n",
    ),
    "llama 3": Prompt(
        chat_message=LLAMA3_MESSAGE, chat="<|begin_of_text|>{{.Input }}\n<|start_header_id|>assistant<|end_header_id|>\n"
    ),
    "functions": Prompt(chat_message=LLAMA3_MESSAGE, chat="{{.Input}}", function=FUNCTIONS),
    "instructions": Prompt(
        chat="[INST]{{ if .SystemPrompt }}{{ .SystemPrompt }}{{ end }} {{ .Input }}[/INST]\n", system_prompt="Be \"nice\".\n"
    ),
    "roles": Prompt(
        chat="{{.Input}}\nASSISTANT:", roles={"user": "USER:", "system": "", "assistant_function_call": "CALL:"}, join=" "
    ),
    "role texts in a message": Prompt(chat_message="{{.Role}}{{with .Content}} {{.}}{{end}}", roles={"user": "U"}, join=""),
    "system only when the request has none": Prompt(
        chat="{{if not .SuppressSystemPrompt}}{{.SystemPrompt}}{{end}}{{.Input}}", system_prompt="S"
    ),
    "indices": Prompt(chat_message="{{.MessageIndex}}{{.Content}}{{if .LastMessage}}!{{end}}{{if and .Content (ne .RoleName \"user\")}}+{{end}}"),
    "functions of sprig": Prompt(
        chat_message='{{.Content | trim | upper}}{{lower .RoleName}}{{default "none" .FunctionName}}'
        '{{if contains "o" .Content}}o{{end}}{{if hasPrefix "u" .RoleName}}u{{end}}{{if hasSuffix "m" .RoleName}}m{{end}}{{.LastMessage}}',
    ),
    "variables": Prompt(
        chat='{{$s := .Input}}{{range $i, $f := .Functions}}{{if $i}}, {{end}}{{$f.Name}}/{{.Name}}{{$.SystemPrompt}}{{else}}none{{end}}{{$s}}',
        system_prompt="!",
    ),
    "jinja's own marks": Prompt(chat="{% x %} {# y #} {{.Input}} }} \\ ' \u00fc \U0001f600"),
    "empty messages are left out": Prompt(chat_message='{{if ne .RoleName "system"}}{{.Content}}{{end}}', chat="<{{.Input}}>"),
}  # fmt: skip

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": "\\n"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "adds", "parameters": {"properties": {}, "type": "object"}},
}
CONVERSATIONS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hello"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief.\n"},
            {"role": "user", "content": " Two\nlines {{ x }} {% y %} "},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "why?", "name": "Ann"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "name": "add"},
            {"role": "assistant", "content": "so", "tool_calls": [CALL, CALL]},
            {"role": "user", "content": "thanks"},
        ],
        "tools": [TOOL, TOOL],
    },
]


def environment() -> jinja2.Environment:
    """As llama.cpp and Hugging Face set Jinja up; JSON as Go writes it."""
    made = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    made.filters["tojson"] = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return made


def render(prompt: Prompt, conversation: dict[str, Any], **more: object) -> str:
    template = environment().from_string(chat_template.translate(prompt))
    return template.render(**conversation, add_generation_prompt=True, **more)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[tuple[Prompt, dict[str, Any]]]], list[str]]:
    """What LocalAI's evaluator makes of prompts and conversations, by Go's own text/template; "!" where Go refuses."""
    if GO is None:
        pytest.skip("Go is not installed")
    folder = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GOCACHE": str(folder / "cache"), "GO111MODULE": "off"}
    source = Path(__file__).parents[2] / "gotemplate/render.go"
    subprocess.run([GO, "build", "-o", folder / "render", source], env=env, check=True)

    def rendered(cases: list[tuple[Prompt, dict[str, Any]]]) -> list[str]:
        asked = json.dumps([asdict(prompt) | talk for prompt, talk in cases]).encode()
        done = subprocess.run([folder / "render"], input=asked, capture_output=True, check=True)
        return list(json.loads(done.stdout))

    return rendered


GoRender = Callable[[list[tuple[Prompt, dict[str, Any]]]], list[str]]


def test_it_is_what_go_renders(go: GoRender) -> None:
    cases = [(prompt, talk) for prompt in PROMPTS.values() for talk in CONVERSATIONS]
    for (prompt, talk), expected in zip(cases, go(cases), strict=True):
        assert (prompt, render(prompt, talk)) == (prompt, expected)


FRAGMENTS = (
    *("{{.Content}}", "{{.RoleName}}", "{{.Role}}", "{{.SystemPrompt}}", "{{- .Content -}}", "{{ .Content -}}", "{{toJson .FunctionCall}}"),
    *("{{if .Content}}", "{{if .FunctionCall -}}", '{{if eq .RoleName "user" "tool"}}', "{{- with .FunctionName }}", "{{else}}", "{{- else -}}"),
    *('{{else if ne .RoleName "system"}}', "{{end}}", "{{ end -}}", "{{/* c */}}", "{{- /* c */ -}}", "text", " ", "\n", "\t\n", "<|x|>"),
    *("{{.}}", "{{if and .Content .LastMessage}}", "{{if not (or .Function .Role)}}", '{{printf "%d" .MessageIndex}}', "{{.MessageIndex}}"),
    *("{{if .}}", "{{- with $ -}}", "{{not .}}", "{{if or . .Content}}", "{{.Function}}", "{{$.Content}}"),
    *('{{"a\\n\\"b\\u00e9"}}', "{{`r\\n`}}", "{{.Content | upper | trim}}", "{{$x := .Content}}", "{{$x}}", "{{len .Content}}", "{{true}}"),
)  # fmt: skip


def test_random_templates_are_what_go_renders_or_refused(go: GoRender) -> None:
    chance = random.Random(7)
    cases = []
    for _ in range(8000):
        template = "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 9)))
        prompt = Prompt(chat_message=template, roles={"user": "U"}, system_prompt="S", grammar=chance.random() < 0.5)
        try:
            chat_template.translate(prompt)
        except UntranslatableError:
            continue
        cases.append((prompt, CONVERSATIONS[chance.randrange(3)]))
    rendered = [pair for pair in zip(cases, go(cases), strict=True) if pair[1] != "!"]
    assert len(rendered) > 1000
    for (prompt, talk), expected in rendered:
        assert (prompt.chat_message, render(prompt, talk)) == (prompt.chat_message, expected)


def test_the_deepest_template_that_is_taken_can_be_rendered() -> None:
    template = "{{if .Input}}" * 16 + "{{" + "(" * 16 + ".Input" + ")" * 16 + "}}" + "{{end}}" * 16
    translated = chat_template.translate(Prompt(chat=template))
    assert chat_template.reaches_the_model(translated)
    assert render(Prompt(chat=template), CONVERSATIONS[0]) == "hello"


@pytest.mark.parametrize(
    ("name", "talk", "expected"),
    [
        ("a base model", 1, "Be brief.\n\n Two\nlines {{ x }} {% y %} \nyes\nwhy?"),
        ("phi", 0, "<|user|>\nhello<|end|>\n\n<|assistant|>\n"),
        ("instructions", 0, '[INST]Be "nice".\n hello[/INST]\n'),
        ("roles", 0, "USER:hello\nASSISTANT:"),
        ("empty messages are left out", 1, "< Two\nlines {{ x }} {% y %} \nyes\nwhy?>"),
        (
            "llama 3",
            0,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>\n\n"
            "<|start_header_id|>assistant<|end_header_id|>\n",
        ),
    ],
)
def test_fixed_answers(name: str, talk: int, expected: str) -> None:
    assert render(PROMPTS[name], CONVERSATIONS[talk]) == expected


def test_an_answer_that_is_gone_on_with_has_no_new_beginning() -> None:
    template = environment().from_string(chat_template.translate(PROMPTS["phi"]))
    said = template.render(messages=[{"role": "assistant", "content": "so"}], add_generation_prompt=False)
    assert said == "<|assistant|>\nso<|end|>\n"


def test_content_that_is_no_text_counts_as_none() -> None:
    assert render(PROMPTS["a base model"], {"messages": [{"role": "assistant", "content": None}]}) == ""
