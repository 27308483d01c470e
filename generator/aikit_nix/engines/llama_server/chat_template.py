"""LocalAI's prompt templates as one Jinja chat template.

What LocalAI does with them: core/templates/evaluator.go of v4.9.0. `chat_message` is rendered for each message, those that
come out empty are left out, the rest is joined (with a line break unless the config says otherwise) and becomes `.Input`
of `chat`, or of `function` where the request has tools. Without `chat_message` a message is its role's text from `roles`
and its content. What differs: LocalAI's own `answer` tool is not among the tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from aikit_nix.engines.llama_server.gojinja import UntranslatableError, Value, literal, render


@dataclass(frozen=True)
class Prompt:
    """A model's prompt as LocalAI is told it: Go templates (None where there is none), texts of roles, and so on."""

    chat: str | None = None
    chat_message: str | None = None
    function: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str = ""
    join: str = "\n"
    grammar: bool = False


def translate(prompt: Prompt) -> str:
    """The chat template. Raises UntranslatableError.

    All text stands in string literals, so that no engine's rules on white space around tags touch it.
    """
    blocks = [
        '{%- set ns = namespace(input="", some=false, system=false) -%}',
        f"{{%- set roles = {_dict(prompt.roles)} -%}}",
        _CALLS if _uses_calls(prompt) else "",
        "{%- for message in messages -%}",
        "{%- set role = message.role -%}",
        '{%- set text = message.content if message.content is string else "" -%}',
    ]
    if prompt.roles.get("assistant_function_call"):
        blocks.append(
            '{%- if role == "assistant" and message.tool_calls -%}{%- set role = "assistant_function_call" -%}{%- endif -%}'
        )
    if prompt.chat_message is not None:
        blocks += [
            "{%- set line -%}",
            render(prompt.chat_message, _message_fields(prompt)),
            "{%- endset -%}",
            '{%- if line != "" -%}',
            _append(prompt.join, "line"),
            "{%- endif -%}",
        ]
    else:
        blocks += [
            '{%- set name = roles[role] if role in roles else "" -%}',
            '{%- set line = (name ~ text) if text != "" else "" -%}',
            "{%- if message.tool_calls -%}",
            '{%- set line = (line ~ "\\n" if text != "" else "") ~ (name ~ " " if name != "" else "")'
            " ~ calls(message.tool_calls) -%}",
            "{%- endif -%}",
            '{%- if role == "system" and text != "" -%}{%- set ns.system = true -%}{%- endif -%}',
            _append(prompt.join, "line"),
        ]
    blocks.append("{%- endfor -%}")
    fields = _prompt_fields(prompt)
    whole = _answer_begins(render(prompt.chat if prompt.chat is not None else "{{.Input}}", fields))
    if prompt.function is not None:
        function = _answer_begins(render(prompt.function, fields))
        whole = f"{{%- if tools -%}}\n{function}\n{{%- else -%}}\n{whole}\n{{%- endif -%}}"
    return "\n".join(block for block in [*blocks, whole] if block) + "\n"


@lru_cache(maxsize=64)
def reaches_the_model(template: str) -> bool:
    """Whether what a user says stands in the prompt. AIKit's spec page has templates that print `.SystemPrompt` instead.

    Raises UntranslatableError where Jinja cannot read it after all.
    """
    import jinja2.sandbox  # takes its time to load

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    said = "0123456789"
    messages = [{"role": "user", "content": said}]
    try:
        return said in environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    except jinja2.TemplateError as bad:
        raise UntranslatableError(f"a template that makes none ({bad})") from None


def _answer_begins(code: str) -> str:
    """Text behind the messages is where the answer begins: only where the server asks for that.

    It does not where the last message is an answer to go on with.
    """
    before, printed, after = code.rpartition("{{- ns.input -}}")
    texts = after.strip().split("\n")
    if not printed or not all(re.fullmatch(r'\{\{- ".*" -\}\}', text) for text in texts):
        return code
    begin = "{%- if add_generation_prompt is not defined or add_generation_prompt -%}"
    return "\n".join([before + printed, begin, *texts, "{%- endif -%}"])


# Go's JSON of LocalAI's []ToolCall.
_CALLS = (
    "{%- macro calls(list) -%}"
    '{{- "[" -}}{%- for call in list -%}'
    '{{- "," if not loop.first else "" -}}'
    "{%- set said = call.function.arguments -%}"
    "{%- set said = said if said is string else said|tojson -%}"
    '{{- \'{"index":0,"id":\' ~ (call.id or "")|tojson ~ \',"type":"function","function":{"name":\' -}}'
    "{{- call.function.name|tojson ~ ',\"arguments\":' ~ said|tojson ~ '}}' -}}"
    '{%- endfor -%}{{- "]" -}}{%- endmacro -%}'
)


def _uses_calls(prompt: Prompt) -> bool:
    return prompt.chat_message is None or "FunctionCall" in prompt.chat_message


def _append(join: str, name: str) -> str:
    return (
        f'{{%- set ns.input = ns.input ~ ({literal(join)} if ns.some else "") ~ {name} -%}}{{%- set ns.some = true -%}}'
    )


def _message_fields(prompt: Prompt) -> dict[str, Value]:
    return {
        "SystemPrompt": Value(literal(prompt.system_prompt)),
        "Role": Value('(roles[role] if role in roles else "")'),
        "RoleName": Value("role"),
        "FunctionName": Value('(message.name or "")'),
        "Content": Value("text"),
        "MessageIndex": Value("loop.index0", "int"),
        "Function": Value("loop.last" if prompt.grammar else "false", "bool"),
        "FunctionCall": Value("message.tool_calls", "calls"),
        "LastMessage": Value("loop.last", "bool"),
    }


def _prompt_fields(prompt: Prompt) -> dict[str, Value]:
    return {
        "SystemPrompt": Value(literal(prompt.system_prompt)),
        "SuppressSystemPrompt": Value("ns.system", "bool"),
        "Input": Value("ns.input"),
        "Instruction": Value('""'),
        "Functions": Value("(tools or [])", "functions"),
        "MessageIndex": Value("0", "int"),
        "ReasoningEffort": Value('(reasoning_effort or "")'),
    }


def _dict(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{literal(key)}: {literal(value)}" for key, value in texts.items()) + "}"
