"""What may be shown of addresses and texts: no password, no token, no control character, one line."""

from __future__ import annotations

import re

# The one list of keys, in a query or behind a `;` or a `#`, whose value opens something: presigned addresses of the clouds,
# what services call their tokens.
_SECRET_KEY = re.compile(
    r".*token|.*secret.*|(.*[-_.])?(pass|passwd|password|passphrase|pwd)|.*credentials?|.*signature|(.*[-_.])?(sig|sas|jwt)"
    r"|(.*[-_.])?session([-_.]?id)?|policy|(.*[-_.])?o?auth(orization|key)?|(.*[-_.])?key"
    r"|(aws|api|access|private|account|client|user|secret|sub)+[-_.]?key([-_.]?id)?|key-pair-id|_state|x-(amz|goog|ms)-.*",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s'\"<>`]+", re.IGNORECASE)  # not longer: that cost its square
_INNER = re.compile(r"://[^/@?&\s]*@")  # of an address in an address, as some proxies have it
_LONGEST = 1000  # characters of a message that came from elsewhere

_hidden: set[str] = set()


def printable(text: str) -> str:
    r"""One line of text in which nothing can steer a terminal: what is no printable character becomes an escape (`\x1b`).

    That is all of Unicode's control, format, surrogate and unassigned characters, and every white space but the blank.
    What is printable stays as it is, so to escape twice does no harm.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def hide(secret: str) -> None:
    """Never show this text from now on: `shown` blanks it wherever it stands, a server's echo included."""
    if len(secret) >= 4:  # shorter ones are no secrets, and would blank half of every message
        _hidden.add(secret)


def blank(url: str) -> str:
    """An address without what it may keep secret: user and password, the fragment, values of the query that sign it."""
    scheme, slashes, rest = url.partition("://")
    if not slashes or re.search("[/?#]", scheme):
        scheme, slashes, rest = "", "", url
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and not re.fullmatch(r"[^:]*(:[0-9]*)?|\[.*", authority):
        authority = rest  # a password with one of these in it: no port looks like that
    userinfo, at, _ = authority.rpartition("@")
    address, _, _ = rest[len(userinfo + at) :].partition("#")
    place, *pairs = re.split("([?&;])", address)
    whole = f"{scheme}{slashes}{'***' if userinfo else ''}{at}{place}" + "".join(map(_pair, pairs))
    return _line(_INNER.sub("://***@", whole))


def secret_key(address: str) -> str | None:
    """The first key in an address that carries a secret, as it is written there: what must not be kept."""
    pairs = (pair.partition("=") for pair in re.split("[?&;#]", address)[1:])
    return next((key for key, equals, _ in pairs if equals and _is_secret(key)), None)


def shown(text: str) -> str:
    """A text from elsewhere (a server's answer, a library's message) as it may be printed: see this module."""
    return _line(_ADDRESS.sub(lambda match: blank(match[0]), text))


def without_secrets(text: str) -> str:
    """The text less what `hide` was told."""
    for secret in _hidden:
        text = text.replace(secret, "***")
    return text


def _pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    return f"{key}=***" if equals and _is_secret(key) else pair


def _is_secret(key: str) -> bool:
    from urllib.parse import unquote_plus

    return _SECRET_KEY.fullmatch(unquote_plus(key[:200]).strip()) is not None


def _line(text: str) -> str:
    text = printable(" ".join(without_secrets(text).split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
