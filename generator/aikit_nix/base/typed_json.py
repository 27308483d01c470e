"""JSON from files and from elsewhere, as types: msgspec compares what is read with a dataclass or Struct and says where it differs.

What two readers would understand differently (a key twice, in another case, `NaN`) is refused before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from aikit_nix.base.errors import error

T = TypeVar("T")

_WORDS: dict[str, str] = {}


def form(pattern: str, words: str) -> Meta:
    """Of a text that matches a pattern as a whole; `words` say what it is."""
    meta = Meta(pattern=rf"\A(?:{pattern})\Z")
    _WORDS[f"matching regex {meta.pattern!r}"] = words
    return meta


Sha256: TypeAlias = Annotated[str, form("[0-9a-f]{64}", "no sha256: it is not 64 lower-case hex digits")]
Digest: TypeAlias = Annotated[str, form("sha256:[0-9a-f]{64}", "no sha256 digest")]
Sri: TypeAlias = Annotated[str, form("sha256-[A-Za-z0-9+/]{43}=", "no SHA-256 as Nix writes it")]
Size: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 60)]  # bytes
_KINDS = {
    "array": "list",
    "str": "text",
    "int": "number that may stand there",
    "bool": "`true` or `false`",
    "null": "`null`",
}


def parse(data: bytes) -> Any:
    """What JSON says. Raises ValueError where it is none, or not in UTF-8; nests too deep; holds a key twice, also in another
    case, which Go's reader folds; or half of a surrogate pair, which nobody could write again.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deep") from None
    except UnicodeEncodeError as bad:
        raise ValueError(f"it holds the character U+{ord(bad.object[bad.start]):04X}, which no codec writes") from None
    return value


def decode(data: bytes, kind: type[T]) -> T:
    """What JSON says, strictly, as a type. Raises ValueError."""
    return convert(parse(data), kind)


def convert(value: object, kind: type[T], *, strict: bool = True) -> T:
    """What was read, as a type; unless `strict` a text may be a number. Raises ValueError, which names the place."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as bad:
        raise ValueError(_sentence(str(bad))) from None


def versioned(value: object, kind: type[T], version: int) -> T:
    """As `convert`, for what says its version. Raises ValueError."""
    if (said := convert(value, _Format).format_version) != version:
        raise ValueError(f"it has the format {said}, this aikit-nix reads {version}")
    return convert(value, kind)


class _Format(msgspec.Struct, rename="camel"):
    format_version: int


def encode(value: object, *, is_sorted: bool = False, ascii_only: bool = False) -> str:
    """A type as JSON for people, a line each; the same value gives the same bytes."""
    content = msgspec.to_builtins(value)
    return json.dumps(content, indent=2, sort_keys=is_sorted, ensure_ascii=ascii_only) + "\n"


def pack(value: object) -> bytes:
    """A type as JSON for this program alone."""
    return msgspec.json.encode(value)


@contextmanager
def refusing(what: str, mend: str = "", code: str = "error") -> Iterator[None]:
    """Make an AikitError of a ValueError: what is wrong (where and why), and how to mend it."""
    try:
        yield
    except ValueError as bad:
        why = " ".join(str(bad).split())[:200]
        raise error(f"{what} ({why}){': ' if mend else ''}{mend}", code=code) from None


def _sentence(said: str) -> str:
    """msgspec's message in our words."""
    said, _, place = said.partition(" - at ")
    at = place.strip("`") or "it"
    if found := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{at} lacks {found[1]!r}"
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        return f"{at}: {found[1]!r} is not known" if place else f"{found[1]!r} is not known"
    if found := re.fullmatch(r"Invalid enum value (.*)", said):
        return f"{at} cannot be {found[1]}"
    if " of length " in said:
        return f"{at} is too short or too long"
    if found := re.fullmatch(r"Expected `(\w+)[^`]*` ?(matching regex .*)?.*", said):
        words = _WORDS.get(found[2]) or f"no {_KINDS.get(found[1], found[1])}"
        return f"{at} is {'no size in bytes' if found[1] == 'int' and at.lower().endswith('size') else words}"
    return f"{at}: {said}" if place else said


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len({key.casefold() for key in found}) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key.casefold() in seen or seen.add(key.casefold()))  # type: ignore[func-returns-value]
        raise ValueError(f"it says {twice[:80]!r} twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
