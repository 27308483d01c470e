"""What a 401 asks for: the challenges of WWW-Authenticate, of which there may be several. Source: RFC 9110, 11.6.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A parameter; or a scheme, which may have one word of base64 in place of parameters.
_PART = re.compile(
    rf'(?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"=]+))\s*(?=,|$)'
    rf"|(?P<scheme>{_WORD})(?:\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)|\s+|\s*(?=,|$))"
)


@dataclass(frozen=True)
class Challenge:
    """A way to log in: its scheme and the names of its parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(header: str) -> Iterator[Challenge]:
    """The challenges of a header, several of which were joined by commas. What is none of its grammar is passed over."""
    scheme, parameters = "", dict[str, str]()
    at = 0
    while at < len(header):
        part = _PART.match(header, at)
        at = part.end() if part else at + 1
        if not part:
            continue
        if part["scheme"]:
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters = part["scheme"].lower(), {}
        elif scheme:
            value = part["bare"] or re.sub(r"\\(.)", r"\1", part["quoted"] or "")
            parameters.setdefault(part["name"].lower(), value)
    if scheme:
        yield Challenge(scheme, parameters)
