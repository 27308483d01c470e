"""`aikit-nix fmt`: one indentation, comments kept, the meaning proven to be the same.

ruamel.yaml does the work (PyYAML forgets comments). What comes out is parsed again and compared, so that neither its
mistakes nor ours can change what a file means.
"""

from __future__ import annotations

import difflib
import io
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from aikit_nix.aikitfile import parser, yamltree
from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, Position, error
from aikit_nix.base.redact import printable


@dataclass(frozen=True)
class Formatted:
    """What formatting makes of a file."""

    path: Path
    before: str
    after: str

    def diff(self) -> str:
        """A unified diff."""
        name = printable(str(self.path))  # a line break in it would be one in the diff
        # By line feeds alone: to patch(1), Unicode's other line breaks are none
        lines = difflib.unified_diff(list(io.StringIO(self.before)), list(io.StringIO(self.after)), name, name)
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def write(self) -> None:
        """Replace the file, all of it or nothing. Raises AikitError."""
        files.write_atomic(self.path, self.after.encode())


def plan(path: Path, *, unescape: bool = False) -> Formatted | None:
    """What would change; None where nothing would. Raises AikitError for a file that is not valid."""
    data = yamltree.read_bytes(path)
    before = yamltree.decode(data, str(path))
    parsed, _ = parser.parse(data, str(path))
    after = formatted(before, str(path), parsed if unescape else None)
    if after.encode() == data:
        return None
    return Formatted(path, before, after)


def formatted(text: str, file: str, texts: Aikitfile | None = None) -> str:
    """The text, formatted. With `texts`, its templates and config are written as they stand there.

    Raises AikitError where that cannot be done without a change of meaning.
    """
    _, warnings = yamltree.compose(text, file)
    for warning in warnings:
        raise error("fmt keeps one document: move the others to files of their own first", warning.at, "fmt")
    escapes = Escapes.VERBATIM
    for warning in parser.parse(text.encode(), file, escapes)[1]:
        if warning.code == "duplicate-key":
            raise error(f"fmt keeps no double keys, remove one: {warning.message}", warning.at, "fmt")
    wanted = meaning(text, file, Escapes.AUTO if texts else escapes)
    try:
        after = _round_trip(text, texts)
    except Exception as failed:  # whatever ruamel.yaml stumbles over, the file is left alone
        problem = " ".join(str(getattr(failed, "problem", None) or failed).split())
        raise error(f"fmt cannot rewrite this file: {problem}", Position(file, 1, 1, text), "fmt") from None
    try:
        same = meaning(after, file, escapes) == wanted
    except AikitError:
        same = False
    if not same:
        raise error("fmt would change what this file means, so it leaves it alone", Position(file, 1, 1, text), "fmt")
    return after


def meaning(text: str, file: str, escapes: Escapes) -> Aikitfile:
    """What the text means, whatever its lines and columns."""
    nowhere = Position(file, 0, 0)

    def bare(value: Any) -> Any:
        match value:
            case Position():
                return nowhere
            case tuple():
                return tuple(map(bare, value))
            case _ if is_dataclass(value) and not isinstance(value, type):
                return replace(value, **{each.name: bare(getattr(value, each.name)) for each in fields(value)})
            case _:
                return value

    parsed: Aikitfile = bare(parser.parse(text.encode(), file, escapes)[0])
    return replace(parsed, data=b"")


def _round_trip(text: str, texts: Aikitfile | None) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(text.replace("\r\n", "\n"))
    if texts:
        _write_texts(tree, texts)
    out = io.StringIO()
    yaml.dump(tree, out)
    return _tidy(out.getvalue())


def _tidy(text: str) -> str:
    """Outside of texts of several lines: no blanks at the ends of lines, comments indented as what follows them."""
    root, _ = yamltree.compose(text, "")
    within = {
        line
        for node in yamltree.scalars(root)
        for line in range(node.at.line + 1, node.end.line + (node.end.column > 1))
    }
    lines = text.split("\n")
    indent = ""
    for number in range(len(lines), 0, -1):
        line = lines[number - 1]
        if number in within:
            continue
        content = line.strip()
        if content.startswith("#"):
            lines[number - 1] = indent + content
        else:
            lines[number - 1] = line.rstrip(" \t")
            if content:
                indent = line[: len(line) - len(line.lstrip(" "))]
    return "\n".join(lines).lstrip("\n")


def _write_texts(tree: Any, texts: Aikitfile) -> None:
    from ruamel.yaml.scalarstring import LiteralScalarString

    if texts.config and "config" in tree:
        tree["config"] = LiteralScalarString(texts.config.value)
    templates = {
        template.name.at.line: template.template.value for model in texts.models for template in model.prompt_templates
    }
    for model in tree.get("models") or []:
        for template in model.get("promptTemplates") or []:
            line = template.lc.value("name")[0] + 1 if "name" in template else 0
            if line in templates:
                template["template"] = LiteralScalarString(templates[line])
