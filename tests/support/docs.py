"""The examples of a page of docs/, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, section: str) -> list[str]:
    """The shell examples below a heading of a page."""
    text = (_DOCS / page).read_text(encoding="utf-8")
    part = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [each for each in part if each.startswith(section + "\n")]
    return re.findall(r"^```sh\n(.*?)^```$", found, re.MULTILINE | re.DOTALL)
