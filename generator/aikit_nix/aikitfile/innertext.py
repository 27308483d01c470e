"""A text that an aikitfile holds (a template, the config), and where its words stand in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from aikit_nix.base.errors import Position

_WORD = re.compile(r'[^\s"\\]{1,100}|\S?')


@dataclass(frozen=True)
class Text:
    """A text of the aikitfile: its lines as they became, and all lines of the file, to point into it."""

    at: Position
    rows: tuple[str, ...]
    lines: tuple[str, ...]

    def place(self, line: int, word: str, column: int = 0) -> Position:
        """Where in the file the `word` stands that is in this line (from 1) of the text, in or behind this column (from 0).

        Only a literal block has the same lines in the file as in its text; for other styles, the text's beginning.
        """
        first = self.lines[self.at.line - 1] if self.at.line <= len(self.lines) else ""
        number = self.at.line + line
        if not first.startswith("|", self.at.column - 1) or number > len(self.lines):
            return self.at
        source = self.lines[number - 1]
        indents = _indents(source, self.rows[line - 1] if line <= len(self.rows) else "")
        if indents is None:
            return self.at
        begin, indent = indents
        # unescaping only ever made lines shorter
        behind = begin - indent + column
        found = source.find(word, behind) if word else -1
        return replace(self.at, line=number, column=(found if found >= 0 else begin) + 1)

    def at_mark(self, line: int, column: int) -> Position:
        """Where in the file that stands which begins in this line and column (both from 1) of the text."""
        row = self.rows[line - 1] if line <= len(self.rows) else ""
        word = _WORD.match(row, column - 1)
        return self.place(line, word[0] if word else "", column - 1)


@lru_cache(maxsize=16)
def _indents(source: str, row: str) -> tuple[int, int] | None:
    """How far a line is indented in the file and in the text; None where it is another one. Lines may be long, and have
    thousands of places that are asked for one after the other.
    """
    if re.sub(r"\\+", "", source).strip() != re.sub(r"\\+", "", row).strip():
        return None
    return len(source) - len(source.lstrip()), len(row) - len(row.lstrip())
