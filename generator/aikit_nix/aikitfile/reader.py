"""Reading typed values off a YAML tree, and collecting what is wrong instead of stopping at it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum

from aikit_nix.aikitfile import schema
from aikit_nix.aikitfile.yamltree import Node
from aikit_nix.base.errors import Diagnostic, Located, Position, Severity

Pair = tuple[Node, Node]


class Odd(Enum):
    """What may be wrong with a key and its value."""

    KEY = "cannot be a key"
    MERGE = "cannot be merged"
    TWICE = "stands in its mapping already; the last one counts"


def merged(node: Node, odd: Callable[[Odd, Node, Node], object], flat: dict[int, dict[str, Pair]]) -> dict[str, Pair]:
    """The keys of a mapping with what `<<` merges into it: its own count first, of several merged ones the first.

    `odd` hears of each odd node, and for a key that stands twice of its first. `flat` has the mappings that were looked at:
    each is once, however many merge it.
    """
    if id(node) in flat:
        return flat[id(node)]
    own = flat[id(node)] = {}
    more: dict[str, Pair] = {}
    for key, value in node.pairs:
        if key.kind != "scalar":
            odd(Odd.KEY, key, key)
        elif key.is_merge:
            parts = value.items if value.kind == "sequence" else [value]
            for part in {id(part): part for part in parts}.values():
                if part.kind != "mapping":
                    odd(Odd.MERGE, part, part)
                    continue
                for name, pair in merged(part, odd, flat).items():
                    more.setdefault(name, pair)
        else:
            if key.text in own:
                odd(Odd.TWICE, key, own[key.text][0])
            own[key.text] = (key, value)
    for name, pair in more.items():
        own.setdefault(name, pair)
    return own


class Reader:
    """Values as yaml.v2 takes them: of double keys the last, scalars of any type as text, null as absent."""

    def __init__(self, file: str, found: list[Diagnostic]) -> None:
        self._flat: dict[int, dict[str, Pair]] = {}
        self.file = file
        self.found = found

    def say(self, severity: Severity, code: str, message: str, at: Position) -> None:
        self.found.append(Diagnostic(severity, code, message, at))

    def error(self, code: str, message: str, at: Position) -> None:
        self.say(Severity.ERROR, code, message, at)

    def warn(self, code: str, message: str, at: Position) -> None:
        self.say(Severity.WARNING, code, message, at)

    def fields(self, node: Node, known: dict[str, str], what: str) -> dict[str, Pair]:
        """The keys of a mapping with their values; of double keys the last, warnings for unknown ones."""
        fields = merged(node, self._odd, self._flat)
        for name, (key, _) in fields.items():
            if name not in known:
                self.warn(
                    "unknown-key",
                    f"`{short(name)}` is not a key of {what}: ignored, as by AIKit{schema.guess(name, known)}",
                    key.at,
                )
        return fields

    def _odd(self, what: Odd, node: Node, first: Node) -> None:
        match what:
            case Odd.KEY:
                self.error("wrong-type", f"a key must be a word, not {describe(node)}", node.at)
            case Odd.MERGE:
                self.error("wrong-type", f"`<<` merges mappings, not {describe(node)}", node.at)
            case Odd.TWICE:
                message = f"`{short(node.text)}` stands on line {first.at.line} already: the last one counts"
                self.warn("duplicate-key", message, node.at)

    def text(self, pair: Pair | None, what: str) -> Located[str] | None:
        """A scalar of any type as it was written; None for an absent key or null."""
        if pair is None or pair[1].is_null:
            return None
        node = pair[1]
        if node.kind != "scalar":
            hint = (
                f": write `{pair[0].text}: |` and indent the text below it"
                if pair[0].text in ("config", "template")
                else ""
            )
            self.error("wrong-type", f"{what} must be a text, not {describe(node)}{hint}", node.at)
            return None
        # libyaml refuses half surrogates itself, PyYAML without it does not
        if "\0" in node.text or (not node.text.isascii() and re.search("[\ud800-\udfff]", node.text)):
            what_kind = "U+0000" if "\0" in node.text else "half of a surrogate pair"
            self.error(
                "nul",
                f"{what} holds the character {what_kind}, which no file and no Nix string can hold: remove it",
                node.at,
            )
            return None
        return Located(node.text, node.at)

    def list_of(self, pair: Pair | None, what: str, item: str) -> Sequence[Node]:
        if pair is None or pair[1].is_null:
            return []
        node = pair[1]
        if node.kind != "sequence":
            self.error(
                "wrong-type",
                f"{what} must be a list, not {describe(node)}: write each on a line of its own, as `- {item}`",
                node.at,
            )
            return []
        return node.items

    def boolean(self, pair: Pair | None, what: str) -> bool:
        if pair is None or pair[1].is_null:
            return False
        node = pair[1]
        if node.kind == "scalar" and node.style is None:
            if re.fullmatch(r"true|True|TRUE|yes|Yes|YES|on|On|ON|y|Y", node.text):
                return True
            if re.fullmatch(r"false|False|FALSE|no|No|NO|off|Off|OFF|n|N", node.text):
                return False
        shown = f"`{short(node.text)}`" if node.kind == "scalar" else describe(node)
        self.error("wrong-type", f"{what} must be true or false, without quotes, not {shown}", node.at)
        return False


def absent(pair: Pair | None) -> bool:
    return pair is None or pair[1].is_null or (pair[1].kind == "scalar" and pair[1].text == "")


def describe(node: Node) -> str:
    if node.kind == "scalar":
        return "nothing" if node.is_null else f"the text `{short(node.text)}`"
    return "a list" if node.kind == "sequence" else "a mapping"


def short(text: str) -> str:
    """A text for one line of a message, cut where it is long."""
    return text if len(text) <= 60 else text[:57] + "…"
