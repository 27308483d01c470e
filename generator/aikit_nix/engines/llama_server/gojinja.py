"""Go's text/template in Jinja's words, where the meaning survives.

Text, trim markers, comments, if, range over `.Functions`, with, variables, fields, strings, and the functions below.
Everything else is refused by name. What differs: JSON has Python's spaces and the request's order of keys.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aikit_nix.aikitfile import gotemplate


class UntranslatableError(ValueError):
    """The template says something that no chat template can; the message names it."""


@dataclass(frozen=True)
class Value:
    """A Jinja expression and what it gives: `text`, `bool`, `int`, or something that has fields and cannot be printed."""

    code: str
    kind: str = "text"
    depth: int = 0  # how deep its operators nest, for whoever reads them by recursion


# The templates are untrusted, and what becomes of them is compiled here and by the server: nothing may nest or grow
# without end.
_MOST_CHARACTERS = 32_768
_MOST_BLOCKS = 16
_MOST_CODE = 4_000
_MOST_DEPTH = 32
_MOST_JINJA = 262_144

# What a template is given, which is true as such and has no text.
_WHOLE = Value("true", "data")

# What `{{.Name}}` means in one of `.Functions`.
_FUNCTION = {
    "Name": Value("tool.function.name"),
    "Description": Value('(tool.function.description or "")'),
    "Parameters": Value("(tool.function.parameters if tool.function.parameters is defined else none)", "json"),
}


def literal(text: str) -> str:
    """A string literal with the escapes that every Jinja engine knows."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


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

    dot: Value
    fields: Mapping[str, Value]
    root: Mapping[str, Value]
    variables: Mapping[str, tuple[Value, Mapping[str, Value]]] = field(default_factory=dict)


def render(text: str, fields: Mapping[str, Value]) -> str:
    """The template as Jinja that prints it."""
    code: list[str] = []
    open_blocks: list[tuple[str, _Scope]] = []
    scope = _Scope(_WHOLE, fields, fields)
    for piece in _pieces(text):
        if not piece.action:
            code.append(f"{{{{- {literal(piece.text)} -}}}}")
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
    jinja = "\n".join(code)
    if len(jinja) > _MOST_JINJA:
        raise UntranslatableError(f"the more than {_MOST_JINJA} characters that it becomes")
    return jinja


def _ranged(rest: str, scope: _Scope) -> _Scope:
    names = re.match(r"\$(\w+)\s*(?:,\s*\$(\w+)\s*)?:=", rest)
    if _parse(rest[names.end() :] if names else rest, scope).kind != "functions":
        raise UntranslatableError("`{{range}}` over something other than .Functions")
    if scope.dot.code == "tool":
        raise UntranslatableError("a `{{range}}` inside of a `{{range}}`")
    item = Value("tool", "function")
    variables = dict(scope.variables)
    if names:
        index, one = (names[1], names[2]) if names[2] else ("", names[1])
        variables[one] = (item, _FUNCTION)
        if index:
            variables[index] = (Value("loop.index0", "int"), {})
    return replace(scope, dot=item, fields=_FUNCTION, variables=variables)


def _printed(value: Value) -> str:
    if value.kind == "bool":
        return f'("true" if {value.code} else "false")'
    if value.kind not in ("text", "int", "said"):
        raise UntranslatableError("a value that Go prints in its own notation (use toJson)")
    return value.code


_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<number>-?(?:0|[1-9][0-9]{0,17}))(?![\w.])"""
    r"""|(?P<variable>\$\w*(?:\.[^\W\d]\w*)*)|(?<![\w)"`])(?P<field>(?:\.[^\W\d]\w*)+)|(?P<dot>\.)(?![\w.])"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<sign>[()|]))"""
)


def _parse(text: str, scope: _Scope) -> Value:
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
    if len(value.code) > _MOST_CODE:
        raise UntranslatableError("an expression that is too long")
    return value


def _pipeline(tokens: list[tuple[str, str]], scope: _Scope, depth: int = 0) -> Value:
    """Commands with `|` between them, up to a closing parenthesis; the tokens are used up."""
    if depth > _MOST_BLOCKS:
        raise UntranslatableError(f"more than {_MOST_BLOCKS} parentheses inside of each other")
    value: Value | None = None
    while True:
        function = tokens.pop(0)[1] if tokens and tokens[0][0] == "word" and tokens[0][1] not in _CONSTANTS else None
        operands: list[Value] = []
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


_CONSTANTS = {"true": Value("true", "bool"), "false": Value("false", "bool")}


def _operand(tokens: list[tuple[str, str]], scope: _Scope, depth: int) -> Value:
    kind, text = tokens.pop(0)
    match kind:
        case "string":
            return Value(literal(_unquoted(text)))
        case "raw":
            return Value(literal(text[1:-1].replace("\r", "")))
        case "number":
            return Value(str(int(text)), "int")
        case "dot":
            return scope.dot
        case "field":
            return _field(text[1:], scope.fields)
        case "variable":
            name, _, rest = text[1:].partition(".")
            if name and name not in scope.variables:
                raise UntranslatableError(f"the variable ${name}")
            value, fields = scope.variables[name] if name else (_WHOLE, scope.root)
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


def _field(name: str, fields: Mapping[str, Value]) -> Value:
    if name not in fields:
        raise UntranslatableError(f"the field .{name}")
    return fields[name]


def _unquoted(text: str) -> str:
    """A Go string literal's text. Python's escapes are the same, but for bytes that are no ASCII."""
    if re.search(r"(?<!\\)(?:\\\\)*\\(?:x[89a-fA-F]|[2-7]\d\d)", text):
        raise UntranslatableError(f"the string {text[:40]}")
    try:
        meant = str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        raise UntranslatableError(f"the string {text[:40]}") from None
    if re.search("[\0\ud800-\udfff]", meant):  # which no Nix string can hold, and no UTF-8
        raise UntranslatableError(f"the string {text[:40]}")
    return meant


_FILTERS = {"trim": "trim", "upper": "upper", "lower": "lower"}


def _call(function: str, operands: Sequence[Value]) -> Value:
    # a variable's value stands wherever it is used
    depth = max((operand.depth for operand in operands), default=0) + max(1, len(operands) - 1)
    if depth > _MOST_DEPTH or sum(len(operand.code) for operand in operands) > _MOST_CODE:
        raise UntranslatableError("an expression that is too long")
    return replace(_called(function, operands), depth=depth)


def _called(function: str, operands: Sequence[Value]) -> Value:
    codes = [operand.code for operand in operands]
    kinds = {operand.kind for operand in operands}
    match function, len(operands):
        case ("eq", n) if n >= 2 and kinds <= {"text", "int", "bool"} and len(kinds) == 1:
            return Value("(" + " or ".join(f"{codes[0]} == {other}" for other in codes[1:]) + ")", "bool")
        case ("ne" | "lt" | "le" | "gt" | "ge", 2) if kinds in ({"text"}, {"int"}) and (
            function == "ne" or "int" in kinds
        ):
            sign = {"ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[function]
            return Value(f"({codes[0]} {sign} {codes[1]})", "bool")
        case "not", 1:
            return Value(f"(not {codes[0]})", "bool")
        case ("and" | "or", n) if n >= 1:
            kind = kinds.pop() if len(kinds) == 1 else "mixed"
            return Value("(" + f" {function} ".join(codes) + ")", kind)
        case "len", 1 if kinds == {"functions"}:
            return Value(f"({codes[0]}|length)", "int")
        case ("toJson" | "toRawJson", 1) if kinds == {"calls"}:
            return Value(f'(calls({codes[0]}) if {codes[0]} else "null")', "said")
        case ("toJson" | "toRawJson", 1) if kinds <= {"json", "text", "int", "bool"}:
            return Value(f"({codes[0]}|tojson)", "said")  # not again: each time doubles the backslashes
        case ("trim" | "upper" | "lower", 1) if kinds == {"text"}:
            return Value(f"({codes[0]}|{_FILTERS[function]})")
        case "default", 2 if kinds == {"text"}:
            return Value(f"({codes[1]} or {codes[0]})")
        case "contains", 2 if kinds == {"text"}:
            return Value(f"({codes[0]} in {codes[1]})", "bool")
        case ("hasPrefix" | "hasSuffix", 2) if kinds == {"text"}:
            method = "startswith" if function == "hasPrefix" else "endswith"
            return Value(f"({codes[1]}.{method}({codes[0]}))", "bool")
        case _:
            raise UntranslatableError(f"the function {function}")
