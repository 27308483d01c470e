"""A text that an aikitfile holds (a template, the config), and where its words stand in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from aikit_nix.errors import Position


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
        first = self.lines[self.at.line - 1][self.at.column - 1 :] if self.at.line <= len(self.lines) else ""
        number = self.at.line + line
        if not first.startswith("|") or number > len(self.lines):
            return self.at
        source = self.lines[number - 1]
        row = self.rows[line - 1] if line <= len(self.rows) else ""
        if re.sub(r"\\+", "", source).strip() != re.sub(r"\\+", "", row).strip():
            return self.at
        begin = len(source) - len(source.lstrip())
        # unescaping only ever made lines shorter
        behind = begin - (len(row) - len(row.lstrip())) + column
        found = source.find(word, behind) if word else -1
        return replace(self.at, line=number, column=(found if found >= 0 else begin) + 1)

    def at_mark(self, line: int, column: int) -> Position:
        """Where in the file that stands which begins in this line and column (both from 1) of the text."""
        row = self.rows[line - 1] if line <= len(self.rows) else ""
        word = re.match(r'[^\s"\\]+|\S?', row[column - 1 :])
        return self.place(line, word[0] if word else "", column - 1)
