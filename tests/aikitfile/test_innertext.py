"""Places in a text that an aikitfile holds are places in the file."""

from __future__ import annotations

import pytest

from aikit_nix.aikitfile.innertext import Text
from aikit_nix.base.errors import Position

FILE = """\
a: 1
config: |
    - name: x
      words: [\\"a\\", b, a]

      last: 3
other: "one\\ntwo"
"""
LINES = tuple(FILE.split("\n"))
# as it became: less indentation, escapes undone
CONFIG = Text(Position("f", 2, 9), ("- name: x", '  words: ["a", b, a]', "", "  last: 3", ""), LINES)
OTHER = Text(Position("f", 7, 8), ("one", "two"), LINES)


@pytest.mark.parametrize(
    ("line", "word", "column", "place"),
    [
        (1, "x", 0, (3, 13)),
        (2, "words", 0, (4, 7)),
        (2, "a", 10, (4, 17)),  # behind a backslash
        (2, "a", 13, (4, 25)),  # the second one
        (2, "nowhere", 0, (4, 7)),  # the line's beginning
        (4, "3", 0, (6, 13)),
        (99, "x", 0, (2, 9)),  # not in the file: the text's beginning
    ],
)
def test_a_word_of_a_literal_block_is_found_in_the_file(
    line: int, word: str, column: int, place: tuple[int, int]
) -> None:
    assert CONFIG.place(line, word, column) == Position("f", *place)


@pytest.mark.parametrize(
    ("line", "column", "place"),
    [(1, 3, (3, 7)), (2, 11, (4, 16)), (2, 12, (4, 17)), (2, 99, (4, 7)), (3, 1, (5, 1)), (99, 1, (2, 9))],
)
def test_a_mark_is_found_by_the_word_that_begins_there(line: int, column: int, place: tuple[int, int]) -> None:
    assert CONFIG.at_mark(line, column) == Position("f", *place)


def test_of_other_styles_only_the_beginning_is_known() -> None:
    assert OTHER.place(2, "two") == OTHER.at_mark(2, 1) == OTHER.at
    folded = Text(Position("f", 1, 9), ("- name: x",), ("config: >", "  - name: x"))
    assert folded.place(1, "x") == folded.at


def test_a_block_that_is_not_what_stands_in_the_file_is_not_pointed_into() -> None:
    """The lines may be another text's: of one that an alias stands for, or after a joined line."""
    joined = Text(CONFIG.at, ("- name: x  words", "  last: 3"), LINES)
    assert joined.place(2, "last") == joined.at
    assert Text(Position("f", 99, 1), ("x",), LINES).place(1, "x") == Position("f", 99, 1)
