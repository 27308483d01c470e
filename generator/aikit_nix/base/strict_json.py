"""JSON from elsewhere, read strictly: what two readers would understand differently is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(data: bytes) -> Any:
    """What JSON says. Raises ValueError where it is none, or not in UTF-8; nests too deep; holds a key twice, also in another
    case, which Go's reader folds; or half of a surrogate pair, which nobody could write again.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deep") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len({key.casefold() for key in found}) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key.casefold() in seen or seen.add(key.casefold()))  # type: ignore[func-returns-value]
        raise ValueError(f"it says {twice[:80]!r} twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
