"""LocalAI's prompt templates (Go's text/template) as one Jinja chat template, where the meaning survives.

What LocalAI does with them: core/templates/evaluator.go of v4.6.2. `chat_message` is rendered for each message, those that
come out empty are left out, the rest is joined (with a line break unless the config says otherwise) and becomes `.Input`
of `chat`, or of `function` where the request has tools. Without `chat_message` a message is its role's text from `roles`
and its content.

Of Go's language: text, trim markers, comments, if, range over `.Functions`, with, variables, fields, strings, and the functions
below. Everything else is refused by name. What differs: JSON has Python's spaces and the request's order of keys, and
LocalAI's own `answer` tool is not among the tools.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aikit_nix import gotemplate


class UntranslatableError(ValueError):
    """The template says something that no chat template can; the message names it."""


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


@dataclass(frozen=True)
class _Value:
    """A Jinja expression and what it gives: `text`, `bool`, `int`, or something that has fields and cannot be printed."""

    code: str
    kind: str = "text"


# The templates are untrusted, and what becomes of them is compiled here and by the server: nothing may nest or grow
# without end.
_MOST_CHARACTERS = 32_768
_MOST_BLOCKS = 16
_MOST_CODE = 4_000

# What `{{.Name}}` means: in a message, in the whole prompt, in one of `.Functions`.
_FUNCTION = {
    "Name": _Value("tool.function.name"),
    "Description": _Value('(tool.function.description or "")'),
    "Parameters": _Value("(tool.function.parameters if tool.function.parameters is defined else none)", "json"),
}


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
            _render(prompt.chat_message, _message_fields(prompt)),
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
    whole = _answer_begins(_render(prompt.chat if prompt.chat is not None else "{{.Input}}", fields))
    if prompt.function is not None:
        function = _answer_begins(_render(prompt.function, fields))
        whole = f"{{%- if tools -%}}\n{function}\n{{%- else -%}}\n{whole}\n{{%- endif -%}}"
    return "\n".join(block for block in [*blocks, whole] if block) + "\n"


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
        f'{{%- set ns.input = ns.input ~ ({_literal(join)} if ns.some else "") ~ {name} -%}}'
        "{%- set ns.some = true -%}"
    )


def _message_fields(prompt: Prompt) -> dict[str, _Value]:
    return {
        "SystemPrompt": _Value(_literal(prompt.system_prompt)),
        "Role": _Value('(roles[role] if role in roles else "")'),
        "RoleName": _Value("role"),
        "FunctionName": _Value('(message.name or "")'),
        "Content": _Value("text"),
        "MessageIndex": _Value("loop.index0", "int"),
        "Function": _Value("loop.last" if prompt.grammar else "false", "bool"),
        "FunctionCall": _Value("message.tool_calls", "calls"),
        "LastMessage": _Value("loop.last", "bool"),
    }


def _prompt_fields(prompt: Prompt) -> dict[str, _Value]:
    return {
        "SystemPrompt": _Value(_literal(prompt.system_prompt)),
        "SuppressSystemPrompt": _Value("ns.system", "bool"),
        "Input": _Value("ns.input"),
        "Instruction": _Value('""'),
        "Functions": _Value("(tools or [])", "functions"),
        "MessageIndex": _Value("0", "int"),
        "ReasoningEffort": _Value('(reasoning_effort or "")'),
    }


def _dict(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_literal(key)}: {_literal(value)}" for key, value in texts.items()) + "}"


def _literal(text: str) -> str:
    """A string literal with the escapes that every Jinja engine knows."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


# --- Go's templates


@dataclass(frozen=True)
class _Piece:
    """A piece of a template: text, or the inside of an action."""

    text: str
    action: bool


_ACTION = re.compile(
    r"\{\{(?P<left>-(?=[ \t\r\n]))?"
    r"(?P<inside>\s*/\*.*?\*/\s*?(?=[ \t\r\n]-\}\}|\}\})|(?:\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`|'(?:[^'\\\n]|\\.)*'|(?!\}\}|[ \t\r\n]-\}\}|[\"`']).)*)"
    r"(?P<right>[ \t\r\n]-)?\}\}",
    re.DOTALL,
)
_SPACE = " \t\r\n"


def _pieces(text: str) -> Iterator[_Piece]:
    """Text and actions in turn, trim markers applied, comments left out."""
    if len(text) > _MOST_CHARACTERS:
        raise UntranslatableError(f"its length of more than {_MOST_CHARACTERS} characters")
    if defects := gotemplate.defects(text):
        raise UntranslatableError(f"broken syntax ({defects[0].message})")
    at, trim = 0, False
    while True:
        action = _ACTION.search(text, at)
        between = text[at : action.start() if action else len(text)]
        between = between.lstrip(_SPACE) if trim else between
        between = between.rstrip(_SPACE) if action and action["left"] else between
        if between:
            yield _Piece(between, action=False)
        if action is None:
            return
        inside = action["inside"].strip(_SPACE)
        if not inside.startswith("/*"):
            yield _Piece(inside, action=True)
        at, trim = action.end(), bool(action["right"])


@dataclass(frozen=True)
class _Scope:
    """What names mean at a place: the dot, its fields, variables."""

    dot: _Value
    fields: Mapping[str, _Value]
    root: Mapping[str, _Value]
    variables: Mapping[str, tuple[_Value, Mapping[str, _Value]]] = field(default_factory=dict)


def _render(text: str, fields: Mapping[str, _Value]) -> str:
    """The template as Jinja that prints it."""
    whole = _Value("", "data")
    code: list[str] = []
    open_blocks: list[tuple[str, _Scope]] = []
    scope = _Scope(whole, fields, fields)
    for piece in _pieces(text):
        if not piece.action:
            code.append(f"{{{{- {_literal(piece.text)} -}}}}")
            continue
        word = re.match(r"[a-z]+\b", piece.text)
        keyword = word[0] if word else ""
        rest = piece.text[len(keyword) :].strip(_SPACE)
        if len(open_blocks) > _MOST_BLOCKS:
            raise UntranslatableError(f"more than {_MOST_BLOCKS} blocks inside of each other")
        match keyword:
            case "if":
                open_blocks.append(("if", scope))
                code.append(f"{{%- if {_parse(rest, scope).code} -%}}")
            case "with":
                value = _parse(rest, scope)
                open_blocks.append(("if", scope))
                code.append(f"{{%- if {value.code} -%}}")
                scope = replace(scope, dot=value, fields={})
            case "range":
                open_blocks.append(("for", scope))
                code.append("{%- for tool in (tools or []) -%}")
                scope = _ranged(rest, scope)
            case "else" if open_blocks:
                scope = open_blocks[-1][1]
                if rest:
                    condition = re.fullmatch(r"if\b(.*)", rest, re.DOTALL)
                    if not condition:
                        raise UntranslatableError(f"`{{{{else {rest}}}}}`")
                    code.append(f"{{%- elif {_parse(condition[1], scope).code} -%}}")
                else:
                    code.append("{%- else -%}")
            case "end" if open_blocks:
                kind, scope = open_blocks.pop()
                code.append(f"{{%- end{kind} -%}}")
            case "define" | "template" | "block" | "break" | "continue":
                raise UntranslatableError(f"`{{{{{keyword}}}}}`")
            case _:
                assigned = re.fullmatch(r"\$(\w+)\s*(:?=)(.*)", piece.text, re.DOTALL)
                if assigned:
                    if assigned[2] == "=" or open_blocks:
                        raise UntranslatableError("a variable that changes")
                    value = _parse(assigned[3], scope)
                    scope = replace(scope, variables={**scope.variables, assigned[1]: (value, {})})
                else:
                    code.append(f"{{{{- {_printed(_parse(piece.text, scope))} -}}}}")
    return "\n".join(code)


def _ranged(rest: str, scope: _Scope) -> _Scope:
    names = re.match(r"\$(\w+)\s*(?:,\s*\$(\w+)\s*)?:=", rest)
    if _parse(rest[names.end() :] if names else rest, scope).kind != "functions":
        raise UntranslatableError("`{{range}}` over something other than .Functions")
    if scope.dot.code == "tool":
        raise UntranslatableError("a `{{range}}` inside of a `{{range}}`")
    item = _Value("tool", "function")
    variables = dict(scope.variables)
    if names:
        index, one = (names[1], names[2]) if names[2] else ("", names[1])
        variables[one] = (item, _FUNCTION)
        if index:
            variables[index] = (_Value("loop.index0", "int"), {})
    return replace(scope, dot=item, fields=_FUNCTION, variables=variables)


def _printed(value: _Value) -> str:
    if value.kind == "bool":
        return f'("true" if {value.code} else "false")'
    if value.kind not in ("text", "int", "said"):
        raise UntranslatableError("a value that Go prints in its own notation (use toJson)")
    return value.code


_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<number>-?\d+)(?![\w.])"""
    r"""|(?P<variable>\$\w*(?:\.[^\W\d]\w*)*)|(?<![\w)"`])(?P<field>(?:\.[^\W\d]\w*)+)|(?P<dot>\.)(?![\w.])"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<sign>[()|]))"""
)


def _parse(text: str, scope: _Scope) -> _Value:
    """A pipeline."""
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.strip(_SPACE)
    while at < len(text):
        token = _TOKEN.match(text, at)
        if not token or not token.lastgroup:
            raise UntranslatableError(f"`{{{{{text[:60]}}}}}`")
        tokens.append((token.lastgroup, token[token.lastgroup]))
        at = token.end()
    value = _pipeline(tokens, scope)
    if tokens:
        raise UntranslatableError(f"`{{{{{text[:60]}}}}}`")
    return value


def _pipeline(tokens: list[tuple[str, str]], scope: _Scope, depth: int = 0) -> _Value:
    """Commands with `|` between them, up to a closing parenthesis; the tokens are used up."""
    if depth > _MOST_BLOCKS:
        raise UntranslatableError(f"more than {_MOST_BLOCKS} parentheses inside of each other")
    value: _Value | None = None
    while True:
        function = tokens.pop(0)[1] if tokens and tokens[0][0] == "word" and tokens[0][1] not in _CONSTANTS else None
        operands: list[_Value] = []
        while tokens and tokens[0] not in (("sign", "|"), ("sign", ")")):
            operands.append(_operand(tokens, scope, depth))
        operands += [value] if value else []
        if function:
            value = _call(function, operands)
        elif len(operands) == 1:
            value = operands[0]
        else:
            raise UntranslatableError("a call of something that is no function")
        if not tokens or tokens[0][1] == ")":
            return value
        tokens.pop(0)


_CONSTANTS = {"true": _Value("true", "bool"), "false": _Value("false", "bool")}


def _operand(tokens: list[tuple[str, str]], scope: _Scope, depth: int) -> _Value:
    kind, text = tokens.pop(0)
    match kind:
        case "string":
            return _Value(_literal(_unquoted(text)))
        case "raw":
            return _Value(_literal(text[1:-1].replace("\r", "")))
        case "number":
            return _Value(str(int(text)), "int")
        case "dot":
            return scope.dot
        case "field":
            return _field(text[1:], scope.fields)
        case "variable":
            name, _, rest = text[1:].partition(".")
            if name and name not in scope.variables:
                raise UntranslatableError(f"the variable ${name}")
            value, fields = scope.variables[name] if name else (scope.dot, scope.root)
            return _field(rest, fields) if rest else value
        case "word" if text in _CONSTANTS:
            return _CONSTANTS[text]
        case "sign" if text == "(":
            value = _pipeline(tokens, scope, depth + 1)
            if tokens[:1] != [("sign", ")")]:
                raise UntranslatableError("an open parenthesis")
            tokens.pop(0)
            return value
        case _:
            raise UntranslatableError(f"`{text}`")


def _field(name: str, fields: Mapping[str, _Value]) -> _Value:
    if name not in fields:
        raise UntranslatableError(f"the field .{name}")
    return fields[name]


def _unquoted(text: str) -> str:
    """A Go string literal's text. Python's escapes are the same, but for bytes that are no ASCII."""
    if re.search(r"(?<!\\)(?:\\\\)*\\(?:x[89a-fA-F]|[2-7]\d\d)", text):
        raise UntranslatableError(f"the string {text[:40]}")
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        raise UntranslatableError(f"the string {text[:40]}") from None


_FILTERS = {"trim": "trim", "upper": "upper", "lower": "lower"}


def _call(function: str, operands: Sequence[_Value]) -> _Value:
    # a variable's value stands wherever it is used
    if sum(len(operand.code) for operand in operands) > _MOST_CODE:
        raise UntranslatableError("an expression that is too long")
    codes = [operand.code for operand in operands]
    kinds = {operand.kind for operand in operands}
    match function, len(operands):
        case ("eq", n) if n >= 2 and kinds <= {"text", "int", "bool"} and len(kinds) == 1:
            return _Value("(" + " or ".join(f"{codes[0]} == {other}" for other in codes[1:]) + ")", "bool")
        case ("ne" | "lt" | "le" | "gt" | "ge", 2) if kinds in ({"text"}, {"int"}) and (
            function == "ne" or "int" in kinds
        ):
            sign = {"ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[function]
            return _Value(f"({codes[0]} {sign} {codes[1]})", "bool")
        case "not", 1:
            return _Value(f"(not {codes[0]})", "bool")
        case ("and" | "or", n) if n >= 1:
            kind = kinds.pop() if len(kinds) == 1 else "mixed"
            return _Value("(" + f" {function} ".join(codes) + ")", kind)
        case "len", 1 if kinds == {"functions"}:
            return _Value(f"({codes[0]}|length)", "int")
        case ("toJson" | "toRawJson", 1) if kinds == {"calls"}:
            return _Value(f'(calls({codes[0]}) if {codes[0]} else "null")', "said")
        case ("toJson" | "toRawJson", 1) if kinds <= {"json", "text", "int", "bool"}:
            return _Value(f"({codes[0]}|tojson)", "said")  # not again: each time doubles the backslashes
        case ("trim" | "upper" | "lower", 1) if kinds == {"text"}:
            return _Value(f"({codes[0]}|{_FILTERS[function]})")
        case "default", 2 if kinds == {"text"}:
            return _Value(f"({codes[1]} or {codes[0]})")
        case "contains", 2 if kinds == {"text"}:
            return _Value(f"({codes[0]} in {codes[1]})", "bool")
        case ("hasPrefix" | "hasSuffix", 2) if kinds == {"text"}:
            method = "startswith" if function == "hasPrefix" else "endswith"
            return _Value(f"({codes[1]}.{method}({codes[0]}))", "bool")
        case _:
            raise UntranslatableError(f"the function {function}")
