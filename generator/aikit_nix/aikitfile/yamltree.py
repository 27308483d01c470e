"""YAML text → a tree of nodes that remember where they stood.

Built from PyYAML's events and not from `yaml.compose`: that one recurses in C, so that a file of 200,000 brackets ends
the process instead of raising. Here the depth and the size are bounded, aliases share their node (nothing is copied),
and what follows the first document is never read, as in AIKit (yaml.v2).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from aikit_nix.base import files
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 200_000
_CHARACTERS = 80  # of a text, that count as one value

# Debian's and PyPI's PyYAML carry the C parser; without it the same events come slower.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_KNOWN_TAGS = {None, "!"} | {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp")
}
_NULL_TAG = "tag:yaml.org,2002:null"
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_SLASH = re.compile(r"(?<!\\)(?:\\\\)*\\/")
_MARK = "\uf8ff"
_MOST_QUOTES = 100
_MOST_AGAIN = 64 << 20  # characters that are read once more
_QUOTED = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)  # up to the end of a text in double quotes
_ESCAPED = re.compile(r"\\.", re.DOTALL)


class _QuoteError(Exception):
    """A quote behind a backslash, which stands at `index`."""

    def __init__(self, mark: yaml.Mark, index: int) -> None:
        super().__init__()
        self.mark = mark
        self.index = index


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is read, and what it is called in messages."""

    file: str
    text: str

    def at(self, line: int, column: int) -> Position:
        """A place in the text."""
        return Position(self.file, line, column, self.text)


@dataclass(slots=True, eq=False)
class Node:
    """A scalar, sequence or mapping. `style` is None for a plain scalar, else one of `'`, `"`, `|`, `>`.

    `start` and `stop` are PyYAML's marks; what they cost as Positions is paid only where one is asked for.
    """

    kind: Literal["scalar", "sequence", "mapping"]
    tag: str | None
    document: Document
    start: Any
    stop: Any
    text: str = ""
    style: str | None = None
    items: Sequence[Node] = ()
    pairs: Sequence[tuple[Node, Node]] = ()

    @property
    def at(self) -> Position:
        """Where the node begins."""
        return _position(self.start, self.document)

    @property
    def end(self) -> Position:
        """The first place after the node."""
        return _position(self.stop, self.document)

    @property
    def is_null(self) -> bool:
        """Whether YAML reads the node as null: nothing there, `~` or `null`."""
        if self.kind != "scalar" or self.tag not in (None, _NULL_TAG):
            return False
        return self.style is None and (self.text in _NULLS or self.tag == _NULL_TAG)

    @property
    def is_merge(self) -> bool:
        """Whether it is the key `<<`, whose value is merged into its mapping."""
        return self.kind == "scalar" and self.style is None and self.text == "<<"


def read_bytes(path: Path) -> bytes:
    """The bytes of an aikitfile. Raises AikitError where they cannot be read."""
    return files.read_bounded(path, MAX_BYTES, ": name the aikitfile, or write one with `aikit-nix init`")


def decode(data: bytes, file: str) -> str:
    """The text of an aikitfile: UTF-8, or UTF-16 or UTF-32 with a byte order mark, as YAML wants.

    Raises AikitError where the bytes are something else or more than MAX_BYTES.
    """
    if len(data) > MAX_BYTES:
        raise _error(
            "too-large",
            f"the file has {len(data)} bytes, more than {MAX_BYTES}: is this an aikitfile?",
            Position(file, 1, 1),
        )
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as bad:
        before = data[: bad.start].decode(encoding, errors="replace") if encoding.startswith("utf-8") else ""
        line, _, last = before.rpartition("\n")
        at = Position(file, line.count("\n") + 2 if "\n" in before else 1, len(last) + 1)
        raise _error(
            "encoding",
            f"byte 0x{data[bad.start]:02x} is not {encoding.upper()[:6].rstrip('-')}: save the file as UTF-8",
            at,
        ) from None


def compose(text: str, file: str) -> tuple[Node | None, list[Diagnostic]]:
    """The first document of the text, None where it has none; and warnings.

    Raises AikitError where the text is no YAML, nests deeper than MAX_DEPTH, or stands for more than MAX_VALUES values,
    a long text counted as several. Aliases count as what they stand for: with them, a small and flat file can stand for
    a huge or a deep one.
    """
    document = Document(file, text)
    try:
        return _compose(document, text)
    except _QuoteError as found:
        # Go's scanner takes \' in double quotes, libyaml does not: a mark in place of the backslash keeps every column
        marked = text
        for _ in range(min(_MOST_QUOTES, _MOST_AGAIN // len(text))):
            rest = _QUOTED.match(marked, found.index)
            end = rest.end() if rest else len(marked)
            quoted = _ESCAPED.sub(lambda each: each[0].replace("\\'", f"{_MARK}'"), marked[found.index : end])
            marked = marked[: found.index] + quoted + marked[end:]
            try:
                return _compose(document, marked)
            except _QuoteError as another:
                found = another
        at = _position(found.mark, document)
        raise _error("yaml-syntax", r"too many texts in double quotes have \': write '", at) from None


def _compose(document: Document, text: str) -> tuple[Node | None, list[Diagnostic]]:
    warnings: list[Diagnostic] = []
    root: Node | None = None
    open_nodes: list[tuple[Node, list[Node], int]] = []
    anchors: dict[str, Node] = {}
    weights: dict[int, int] = {}
    heights: dict[int, int] = {}  # levels of nesting; none for a scalar
    values = 0
    for event in _events(document, text):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            if _MARK in event.value and text is not document.text:
                event.value = event.value.replace(_MARK, "")
            if event.style == '"' and _SLASH.search(text, event.start_mark.index, event.end_mark.index):
                raise _error(
                    "yaml-syntax", r"Go's YAML knows no escape \/: write /", _position(event.start_mark, document)
                )
            node = Node(
                "scalar", event.tag, document, event.start_mark, event.end_mark, event.value, event.style or None
            )
            weight = weights[id(node)] = 1 + len(event.value) // _CHARACTERS
        elif kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
            name: Literal["sequence", "mapping"] = "sequence" if kind is yaml.SequenceStartEvent else "mapping"
            node = Node(name, event.tag, document, event.start_mark, event.start_mark)
            weight = 1
        elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
            node, children, before = open_nodes.pop()
            weights[id(node)] = values - before
            heights[id(node)] = 1 + max((heights.get(id(child), 0) for child in children), default=0)
            node.stop = event.end_mark
            if node.kind == "sequence":
                node.items = children
            else:
                node.pairs = list(zip(children[::2], children[1::2], strict=True))
            continue
        elif kind is yaml.AliasEvent:
            node = _aliased(event, anchors, [parent for parent, _, _ in open_nodes], document)
            weight = weights.get(id(node), 1)
            if len(open_nodes) + heights.get(id(node), 0) > MAX_DEPTH:
                raise _too_deep(_position(event.start_mark, document))
        elif kind is yaml.DocumentEndEvent:
            if _another_document(document.text, event.end_mark.index):
                said = (
                    "only the first YAML document of a file is read: this one ends here; move the rest to another file"
                )
                at = _position(event.start_mark, document)
                warnings.append(Diagnostic(Severity.WARNING, "several-documents", said, at))
            break
        else:
            if kind is yaml.DocumentStartEvent and event.version not in (None, (1, 1)):
                raise _error(
                    "yaml-syntax",
                    "Go's YAML reads version 1.1 only: remove %YAML",
                    _position(event.start_mark, document),
                )
            continue
        values += weight
        if values > MAX_VALUES:
            what = f"more than {MAX_VALUES} values (or {_CHARACTERS} characters each) with all aliases counted"
            raise _error("too-large", f"{what}: use fewer", node.at)
        if open_nodes:
            open_nodes[-1][1].append(node)
        else:
            root = node
        if kind is yaml.AliasEvent:
            continue
        if event.tag not in _KNOWN_TAGS:
            shown = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _error("yaml-tag", f"the YAML tag {shown!r} means nothing in an aikitfile: remove it", node.at)
        if event.anchor:
            anchors[event.anchor] = node
        if node.kind != "scalar":
            open_nodes.append((node, [], values - 1))
            if len(open_nodes) > MAX_DEPTH:
                raise _too_deep(node.at)
    return root, warnings


def _aliased(event: Any, anchors: dict[str, Node], parents: list[Node], document: Document) -> Node:
    at = _position(event.start_mark, document)
    node = anchors.get(event.anchor)
    if node is None:
        raise _error("yaml-syntax", f"the alias *{event.anchor} has no anchor &{event.anchor} above it", at)
    if any(node is parent for parent in parents):
        raise _error("yaml-syntax", f"the alias *{event.anchor} is inside of what it stands for", at)
    return node


def _too_deep(at: Position) -> AikitError:
    return _error("yaml-depth", f"more than {MAX_DEPTH} levels of nesting: an aikitfile has 5", at)


def scalars(root: Node | None) -> Iterator[Node]:
    """Every scalar below a node, keys included; each node once, however many aliases lead to it."""
    seen: set[int] = set()
    todo = [root] if root else []
    while todo:
        node = todo.pop()
        if node.kind == "scalar":
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            todo += node.items
            todo += [part for pair in node.pairs for part in pair]


def _events(document: Document, text: str) -> Iterator[Any]:
    try:
        loader = _Loader(text)
        try:
            while loader.check_event():
                yield loader.get_event()  # type: ignore[no-untyped-call]
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        if bad.context_mark and "end of stream" in (bad.problem or ""):
            mark = bad.context_mark  # what was opened and never closed, not the end of the file
        problem = bad.problem or bad.context or "unreadable"
        if mark and "unknown escape" in problem and (quote := re.compile(r"\\?'").match(text, mark.index)):
            raise _QuoteError(mark, quote.end() - 2) from None
        if "nesting depth" in problem:  # libyaml since 0.2.6, which reads ahead of the events that are counted
            raise _too_deep(_position(mark, document) if mark else document.at(1, 1)) from None
        context = f" {bad.context}" if bad.context and bad.problem else ""
        hint = _syntax_hint(text, mark)
        at = _position(mark, document) if mark else document.at(1, 1)
        raise _error("yaml-syntax", f"this is not YAML: {problem}{context}{hint}", at) from None
    except yaml.reader.ReaderError as bad:
        # libyaml counts bytes, the Python reader characters; the character itself is what both name alike
        line, column = 1, 1
        found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        if found:
            before = text[: found.start()]
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise _error(
            "yaml-syntax",
            f"the character {_codepoint(bad.character)} may not stand in YAML: in a text, write it as an escape in double quotes",
            document.at(line, column),
        ) from None
    except yaml.YAMLError as bad:
        raise _error("yaml-syntax", f"this is not YAML: {' '.join(str(bad).split())}", document.at(1, 1)) from None
    except UnicodeEncodeError:
        raise _error("yaml-syntax", "half of a surrogate pair may not stand in YAML", document.at(1, 1)) from None


def _codepoint(character: object) -> str:
    if isinstance(character, bytes):
        character = int.from_bytes(character[:1], "big")
    elif isinstance(character, str):
        character = ord(character[:1] or "\0")
    return f"U+{character:04X}" if isinstance(character, int) else "there"


def _syntax_hint(text: str, mark: yaml.Mark | None) -> str:
    """What most often is behind a syntax error at that place."""
    if mark is None:
        return ""
    lines = text.split("\n")
    around = [lines[n] for n in (mark.line, mark.line - 1) if 0 <= n < len(lines)]
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in around):
        return ": YAML is indented with spaces, not with tabs"
    if around and re.search(r":\s+[^\"'|>\[{#]*:\s", around[0]):
        return ": a value that holds `: ` needs quotes"
    if around and re.search(r":\s+[@`%*&!]", around[0]):
        return ": quote a value that begins with a special character"
    return ""


def _another_document(text: str, index: int) -> bool:
    """Whether anything but comments and end marks follows."""
    return any(line.strip() and not re.match(r"\s*(#|---\s*$|\.\.\.\s*$)", line) for line in text[index:].split("\n"))


def _position(mark: Any, document: Document) -> Position:
    return document.at(mark.line + 1, mark.column + 1)


def _error(code: str, message: str, at: Position) -> AikitError:
    return AikitError(Diagnostic(Severity.ERROR, code, message, at))
