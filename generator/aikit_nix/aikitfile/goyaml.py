"""What Go's yaml.v3 makes of a scalar, a map, a value: LocalAI reads its config with it.

resolve.go and decode.go of yaml.v3 3.0.1; tests/aikitfile/test_goyaml.py compares with it.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from aikit_nix.aikitfile import reader
from aikit_nix.aikitfile.reader import Odd, Pair, describe
from aikit_nix.aikitfile.yamltree import Node

_TAG = "tag:yaml.org,2002:"
_LONGEST = 70  # characters of a number
_INTEGERS = (
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]+", re.ASCII), 16),
    (re.compile(r"[-+]?0[bB][01]+", re.ASCII), 2),
    (re.compile(r"[-+]?0[oO]?[0-7]+", re.ASCII), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII), 10),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:[Tt]|[ ])(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?(Z|[-+]\d\d:\d\d)?)?",
    re.ASCII,
)
_WORDS = {**dict.fromkeys(("true", "yes", "on", "y"), True), **dict.fromkeys(("false", "no", "off", "n"), False)}
_BOOLEANS = re.compile("true|True|TRUE|false|False|FALSE")


class UnsaidError(ValueError):
    """The value is one that JSON cannot say, or no map where one has to be; the message says which."""


def number(node: Node) -> int | float | None:
    """A scalar that is a finite number; None for anything else."""
    plain = node.style is None and node.tag in (None, _TAG + "int", _TAG + "float")
    if node.kind != "scalar" or not (plain or node.tag in (_TAG + "int", _TAG + "float")):
        return None
    text = node.text.replace("_", "")
    if len(text) > _LONGEST or node.text[:1] not in "-+.0123456789" or not text:
        return None
    found: int | float | None = None
    for pattern, base in _INTEGERS:
        if found is None and pattern.fullmatch(text):
            found = int(re.sub("0[oO]?", "", text, count=1) or "0" if base == 8 else text, base)
    if found is None and _FLOAT.fullmatch(text):
        found = float(text)
    if found is None or abs(found) == float("inf") or (node.tag == _TAG + "int" and isinstance(found, float)):
        return None
    return float(found) if node.tag == _TAG + "float" else found


def boolean(node: Node) -> bool | None:
    """A scalar where a field wants true or false: YAML 1.1's words count too, `true` in quotes does not."""
    if node.kind != "scalar" or (node.tag or _TAG + "bool") not in (_TAG + "bool", _TAG + "str"):
        return None
    found = _WORDS.get(node.text.lower())
    if node.text.lower() in ("true", "false"):
        return found if node.style is None and node.tag != _TAG + "str" and _BOOLEANS.fullmatch(node.text) else None
    return found


def merged(node: Node) -> list[Pair]:
    """The keys and values of a map with what `<<` merges into it. Raises UnsaidError."""
    if node.kind != "mapping":
        raise UnsaidError("is no map")
    return list(reader.merged(node, _unsaid, {}).values())


def _unsaid(what: Odd, node: Node, _: Node) -> None:
    if what is Odd.KEY:
        raise UnsaidError(f"has {describe(node)} for a key: JSON's keys are texts")
    if what is Odd.MERGE:
        raise UnsaidError("merges with `<<` what is no map")


def as_json(node: Node, room: int) -> object:
    """The value as Go's json.Marshal would have it, in no more than `room` characters. Raises UnsaidError."""
    return _json(node, [room], room)


def _json(node: Node, room: list[int], most: int) -> object:
    room[0] -= len(node.text) + 1
    if room[0] < 0:
        raise UnsaidError(f"is more than {most} characters: no program takes so long an argument")
    if node.kind == "sequence":
        return [_json(item, room, most) for item in node.items]
    if node.kind == "mapping":
        found: dict[str, object] = {}
        for key, value in merged(node):
            room[0] -= len(key.text)
            if not key.is_null:
                found[said(key.text)] = _json(value, room, most)
        return found
    if node.is_null:
        return None
    if node.style is None and node.tag in (None, _TAG + "bool") and _BOOLEANS.fullmatch(node.text):
        return node.text.lower() == "true"
    if node.style is None and node.tag in (None, _TAG + "float") and _ENDLESS.fullmatch(node.text):
        raise UnsaidError(f"holds {node.text}, which JSON cannot say")
    found_number = number(node)
    if isinstance(found_number, float) and found_number.is_integer() and abs(found_number) < 1e21:
        return int(found_number)
    if found_number is not None:
        return found_number
    return (_time(node.text) if node.style is None and node.tag is None else None) or said(node.text)


def said(text: str) -> str:
    """A text that JSON and a program's argument can hold. Raises UnsaidError."""
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise UnsaidError("holds the character U+0000 or half of a surrogate pair: remove it")
    return text


def _time(text: str) -> str | None:
    """A time as Go's JSON has it (RFC 3339); None for another text."""
    parts = _TIME.fullmatch(text)
    if parts is None or (parts[4] and (parts[8] is None) == ("t" in text.lower())):
        return None
    day = [int(part) for part in parts.groups()[:3]]
    clock = [int(part or 0) for part in parts.groups()[3:6]]
    zone = parts[8] or "Z"
    away = timedelta() if zone == "Z" else timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
    try:
        datetime(*day, *clock, tzinfo=timezone(-away if zone[0] == "-" else away))  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    fraction = (parts[7] or "").rstrip("0")
    return (
        f"{day[0]:04}-{day[1]:02}-{day[2]:02}T{clock[0]:02}:{clock[1]:02}:{clock[2]:02}"
        f"{'.' + fraction if fraction else ''}{'Z' if zone in ('Z', '+00:00', '-00:00') else zone}"
    )
