"""`http://` and `https://`: a file behind a URL."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from aikit_nix.base.errors import RefusedError
from aikit_nix.base.redact import secret_key
from aikit_nix.sources.names import file_name

_HOST = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?"
)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")
# RFC 3986, less the brackets, which curl would read as a pattern
_URL_SAFE = "!#$%&'()*+,-./:;=?@_~"


@dataclass(frozen=True)
class Web:
    """A file behind a URL. `file` is its base name in the image."""

    text: str
    url: str
    file: str


def read(text: str) -> Web:
    """Understand a URL. Raises RefusedError."""
    url = clean(text)
    return Web(text, url, file_name(base_name(urlsplit(url).path)))


def clean(text: str) -> str:
    """The URL as it is asked for: percent-encoded where that is due, without secrets. Raises RefusedError."""
    if re.search(r"\s", text):
        raise RefusedError("holds white space: write %20 for a blank")
    if "\\" in text:
        raise RefusedError("holds a backslash: write / or %5C")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedError("is no URL: check its host and port") from None
    if "@" in parts.netloc:
        raise RefusedError("holds a user name or password, which would end up in the flake and the image: remove it")
    host = parts.netloc.rpartition(":")[0] if port is not None or parts.netloc.endswith(":") else parts.netloc
    if not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)) or len(host) > 253:
        raise RefusedError(f"has no usable host: `{host}`")
    if secret := secret_key(text):
        raise RefusedError(
            f"carries a secret (`{secret}=`), which would end up in the flake and in world-readable"
            " files of the Nix store: download the file and give its path, or use a URL without it"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", parts.path):
        raise RefusedError("holds a `%` that is not followed by two hex digits: write %25")
    behind_host = text[len(parts.scheme) + len("://") + len(parts.netloc) :]
    return f"{parts.scheme}://{parts.netloc}{quote(behind_host, safe=_URL_SAFE)}"


def beside(source: Web, file: str) -> str:
    """The URL of another file in the same folder, with the same query."""
    parts = urlsplit(source.url)
    folder = posixpath.dirname(parts.path.rstrip("/"))
    return urlunsplit(parts._replace(path=f"{folder}/{quote(file)}"))


def base_name(path: str) -> str:
    """Go's path.Base of a URL's path, decoded: trailing slashes do not count. Raises RefusedError."""
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise RefusedError("has a path that is not UTF-8 after decoding its %xx") from None
    file = posixpath.basename(decoded.rstrip("/"))
    if not file:
        raise RefusedError("names no file: its path is empty")
    return file
