r"""How AIKit's shell read templates and config, and when that reading is meant.

AIKit v0.1 to v0.21 wrote both with `echo "TEXT"` in dash, so authors wrote `\"` for `"`; later AIKit writes them as they
stand. Two stages: the double-quote rules of the shell, then the escapes of dash's echo. Where that shell destroyed a
text (it expanded `$name` and backquotes, dropped bare quotes, cut at `\c`), the author's text is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal

from aikit_nix.aikitfile import gotemplate, yamltree
from aikit_nix.base.errors import AikitError


class Escapes(StrEnum):
    """What the user asks for: decide by the text, always undo the shell's escapes, never."""

    AUTO = "auto"
    SHELL = "shell"
    VERBATIM = "verbatim"


class Reading(Enum):
    """How a text was read."""

    SAME = "same"  # nothing in it that a shell would have changed
    KEPT = "kept"  # the shell would have changed it, but it is well-formed as it stands
    SHELL = "shell"  # both stages undone
    QUOTES = "quotes"  # only `\"`, `\$` and `` \` `` undone: with both stages it would be broken


@dataclass(frozen=True)
class Resolved:
    """The text that goes into the image, and how it was come by."""

    text: str
    reading: Reading


Kind = Literal["template", "config"]

_STAGE_1 = re.compile(r'\\(["$`\\])|\\\n')
_STAGE_2 = re.compile(r"\\(?:0([0-7]{1,3})|([abefnrtv\\]))")
_ECHO = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_QUOTES = re.compile(r'\\(["$`])')
_UNREADABLE = 1_000_000


def resolve(text: str, kind: Kind, escapes: Escapes) -> Resolved:
    """The text as its author meant it. `auto` takes the least broken reading, the one as written before the others."""
    if "\\" not in text or escapes is Escapes.VERBATIM:
        return Resolved(text, Reading.SAME)
    shell = undo_shell(text)
    if shell == text:
        return Resolved(text, Reading.SAME)
    if escapes is Escapes.SHELL:
        return Resolved(shell, Reading.SHELL)
    best = Resolved(text, Reading.KEPT)
    least = brokenness(text, kind)
    for candidate in (Resolved(shell, Reading.SHELL), Resolved(_QUOTES.sub(r"\1", text), Reading.QUOTES)):
        if least == 0:
            break
        broken = brokenness(candidate.text, kind)
        if broken < least:
            best, least = candidate, broken
    return best


def undo_shell(text: str) -> str:
    r"""What dash's `echo -n "TEXT"` prints, had the text no bare quotes, no `$`, no backquotes and no `\c`.

    `\0NNN` gives a byte; one that would make no UTF-8, or the NUL that no Nix string can hold, stays as written.
    """
    inside = _STAGE_1.sub(lambda match: match.group(1) or "", text)
    if "\\" not in inside:
        return inside
    decoded = _echo(inside, high=True)
    return decoded if decoded is not None else _echo(inside, high=False) or inside


def _echo(text: str, *, high: bool) -> str | None:
    """The second stage on bytes; None where `high` bytes make no UTF-8."""

    def escape(match: re.Match[str]) -> str:
        octal, letter = match.groups()
        if letter:
            return _ECHO[letter]
        byte = int(octal, 8) & 0xFF
        if byte == 0 or (byte >= 0x80 and not high):
            return match.group()
        # a lone surrogate carries the byte to the decoding below
        return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)

    try:
        return _STAGE_2.sub(escape, text).encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return None


def brokenness(text: str, kind: Kind) -> int:
    r"""How many places of the text cannot be meant; 0 for a well-formed one.

    A template: the defects that Go's parser would see. A config: unreadable YAML; what YAML takes but nobody means, a
    plain scalar that begins with `\"` and four backslashes in a row where YAML has no escapes (one, written for two
    rounds of unescaping); and the defects of the templates in it.
    """
    if kind == "template":
        return len(gotemplate.defects(text))
    try:
        root, _ = yamltree.compose(text, "config")
    except AikitError:
        return _UNREADABLE
    return sum(
        (node.style is None and node.text.startswith('\\"'))
        + (node.style in (None, "'") and "\\" * 4 in node.text)
        + (len(gotemplate.defects(node.text)) if "{{" in node.text else 0)
        for node in yamltree.scalars(root)
    )
