"""JSON from elsewhere."""

from __future__ import annotations

import json
from typing import Any


def parse(data: bytes) -> Any:
    """What JSON says. Raises ValueError where it is none, nests too deep, or holds half of a surrogate pair, which nobody
    could write again.
    """
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deep") from None
    return value
