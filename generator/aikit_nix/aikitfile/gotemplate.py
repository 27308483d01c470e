"""Is this a Go template? A lexer that finds what Go's text/template would refuse at its first reading.

It knows delimiters, comments, strings, numbers, names and the balance of blocks; it does not know which functions and
fields exist, nor the grammar of pipelines. Source: the lexer of Go's text/template/parse. After a defect it goes
on behind the action's end, so that the number of defects measures how broken a text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Defect:
    """What is wrong at `offset` (in characters from the start of the text)."""

    offset: int
    message: str


@dataclass
class _Block:
    """A block that is open: the word that began it, and where; whether its last branch has begun."""

    word: str
    offset: int
    has_else: bool = False


class _Text:
    """A text that is searched from front to back: each word is looked for once in each place of it.

    Without that, a text of openings that nothing closes is read to its end from each of them.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._next: dict[str, tuple[int, int]] = {}  # from where on it was looked for, and where it stands

    def find(self, word: str, start: int) -> int:
        """As `str.find`: -1 where the word does not follow."""
        since, found = self._next.get(word, (0, -2))
        if found == -2 or start < since or 0 <= found < start:
            found = self.text.find(word, start)
            self._next[word] = (start, found)
        return found


_COMMENT = re.compile(r"(?:-[ \t\r\n])?/\*")
_CLOSE = re.compile(r"[ \t\r\n]-\}\}|\}\}")
_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"[^\W]+")
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHAR = re.compile(r"'(?:[^'\\\n]|\\[^\n])+'")
_ESCAPE = re.compile(r"""\\(?:[abfnrtv\\'"]|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|[^\\]""")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]+)?"
    r"|(?:0[bBoO])?[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]+)?)i?"
)
_TERMINATORS = " \t\r\n.,|:)("
_OPENERS = ("if", "range", "with", "block", "define")


@lru_cache(maxsize=16)  # YAML's aliases repeat a text
def defects(text: str) -> tuple[Defect, ...]:
    """Everything that Go would refuse, in order; nothing for a well-formed template."""
    searched = _Text(text)
    found: list[Defect] = []
    unbalanced: list[Defect] = []
    blocks: list[_Block] = []
    at = text.find("{{")
    while at >= 0:
        comment = _COMMENT.match(text, at + 2)
        if comment:
            end = searched.find("*/", comment.end())
            close = re.compile(r"(?:[ \t\r\n]-)?\}\}").match(text, end + 2) if end >= 0 else None
            if close is None:
                found.append(Defect(at, "a comment that does not end with `*/}}`"))
            at = text.find("{{", close.end() if close else at + 2)
            continue
        words, end, defect = _action(searched, at)
        if defect:
            found.append(defect)
        if wrong := _balance(words, at, blocks):
            unbalanced.append(wrong)
        at = text.find("{{", end)
    unbalanced.extend(Defect(block.offset, f"{{{{{block.word}}}}} has no {{{{end}}}}") for block in blocks)
    # behind an unreadable action, the balance means little
    return tuple(found or unbalanced)


def _action(searched: _Text, start: int) -> tuple[list[str], int, Defect | None]:
    """The bare words of the action that begins at `start`, where it ends, and its first defect."""
    text = searched.text
    words: list[str] = []
    at = start + 2
    if re.compile(r"-[ \t\r\n]").match(text, at):
        at += 1
    depth = 0
    empty = True
    while True:
        close = _CLOSE.match(text, at)
        if close:
            defect = Defect(start, "an action with an open parenthesis") if depth else None
            if empty and not defect:
                defect = Defect(start, "an action with nothing in it")
            return words, close.end(), defect
        if at >= len(text):
            return words, at, Defect(start, "an action that does not end with `}}`")
        space = _SPACE.match(text, at)
        if space:
            # the blank before `-}}` belongs to the delimiter
            at = space.end() - 1 if _CLOSE.match(text, space.end() - 1) and text[space.end()] == "-" else space.end()
            continue
        empty = False
        end, problem = _token(searched, at)
        if problem is None and text[at] in "()":
            depth += 1 if text[at] == "(" else -1
            if depth < 0:
                problem = "a `)` without its `(`"
        if problem:
            resume = searched.find("}}", at)
            opening = searched.find("{{", at)
            if resume < 0 or 0 <= opening < resume:
                return words, opening if opening > 0 else len(text), Defect(at, problem)
            return words, resume + 2, Defect(at, problem)
        word = _WORD.match(text, at)
        if word:
            words.append(word.group())
        at = end


def _token(searched: _Text, at: int) -> tuple[int, str | None]:
    """Where the token at `at` ends, and what is wrong with it."""
    text = searched.text
    character = text[at]
    if character == '"':
        return _quoted(text, at, _STRING, "string")
    if character == "'":
        return _quoted(text, at, _CHAR, "character")
    if character == "`":
        end = searched.find("`", at + 1)
        return (end + 1, None) if end >= 0 else (at, "a raw string that does not end")
    if character in "=|(),":
        return at + 1, None
    if character == ":":
        return (at + 2, None) if text.startswith(":=", at) else (at, "a `:` without `=`")
    if character.isdecimal() or character in "+-" or (character == "." and text[at + 1 : at + 2].isdecimal()):
        number = _NUMBER.match(text, at)
        end = number.end() if number else at
        if not any(c.isdecimal() for c in text[at:end]) or _WORD.match(text, end):
            return at, f"a malformed number at `{text[at : at + 8]}`"
        return end, None
    if character in ".$":
        word = _WORD.match(text, at + 1)
        return _terminated(text, word.end() if word else at + 1)
    word = _WORD.match(text, at)
    if word:
        return _terminated(text, word.end())
    if text.startswith('\\"', at):
        return at, '`\\"` where a string is meant'
    return at, f"the character `{character}` outside of a string"


def _terminated(text: str, end: int) -> tuple[int, str | None]:
    if end < len(text) and text[end] not in _TERMINATORS and not text.startswith("}}", end):
        if text.startswith('\\"', end):
            return end, '`\\"` where a string is meant'
        return end, f"the character `{text[end]}` right behind a name"
    return end, None


def _quoted(text: str, at: int, pattern: re.Pattern[str], what: str) -> tuple[int, str | None]:
    match = pattern.match(text, at)
    if match is None:
        return at, f"a {what} that does not end on its line"
    inner = match.group()[1:-1]
    position = 0
    while position < len(inner):
        escape = _ESCAPE.match(inner, position)
        if escape is None:
            return at, f"the escape `{inner[position : position + 2]}` in a {what}, which Go does not know"
        position = escape.end()
    return match.end(), None


def _balance(words: list[str], at: int, blocks: list[_Block]) -> Defect | None:
    """Keep the stack of open blocks, by the action's first word."""
    if not words:
        return None
    match words[0]:
        case word if word in _OPENERS:
            blocks.append(_Block(word, at))
        case "end":
            if not blocks:
                return Defect(at, "an {{end}} without what it ends")
            blocks.pop()
        case "else":
            if not blocks or blocks[-1].word not in ("if", "range", "with"):
                return Defect(at, "an {{else}} without its {{if}}, {{range}} or {{with}}")
            if words[1:2] not in ([], [blocks[-1].word]) or (blocks[-1].word == "range" and len(words) > 1):
                return Defect(at, f"an {{{{else {words[1]}}}}} of {{{{{blocks[-1].word}}}}}")
            if blocks[-1].has_else:
                return Defect(at, "a second {{else}} of one block")
            blocks[-1].has_else = len(words) == 1
        case _:
            pass
    return None
