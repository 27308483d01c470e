"""Where a request goes, and where an answer sends it: what may go along, and what of it is secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aikit_nix.base.redact import blank, hide, shown
from aikit_nix.http.connection import HttpError, Trouble

if TYPE_CHECKING:
    import httpx2

# What may follow a redirect to another host. All else may be a credential: GitLab, Artifactory and others have their own.
_HARMLESS = {
    *("accept", "accept-encoding", "content-length", "content-range", "content-type"),
    *("if-range", "range", "user-agent"),
}


def prepared(url: str, headers: Mapping[str, str]) -> tuple[httpx2.URL, dict[str, str]]:
    """The address without user and password, which become a header, and the headers; their secrets are noted.

    Raises HttpError where one of them is none.
    """
    import base64

    import httpx2

    try:
        address = httpx2.URL(url)
        host = address.host  # decoded only now, which fails for some (UnicodeError is a ValueError)
    except (httpx2.InvalidURL, ValueError) as problem:
        raise HttpError(Trouble.REFUSED, f"{blank(url)} is no address: {shown(str(problem))}") from None
    if address.scheme not in ("http", "https") or not host:
        raise HttpError(Trouble.REFUSED, f"{blank(url)} is no http:// or https:// address")
    sent = dict(headers)
    if address.userinfo:
        hide(address.password)
        userinfo = f"{address.username}:{address.password}".encode()
        sent.setdefault("Authorization", f"Basic {base64.b64encode(userinfo).decode()}")
        address = address.copy_with(username=None, password=None)
    for name, value in sent.items():
        if name.lower() not in _HARMLESS:
            hide(value)
            hide(value.partition(" ")[2])
        if not (value.isascii() and value.isprintable()):
            raise HttpError(Trouble.REFUSED, f"the {name} for {blank(url)} has characters that no header may hold")
    return address, sent


def redirected(response: httpx2.Response) -> httpx2.URL | None:
    """Where an answer sends us; None for all other answers. Raises HttpError where it is no http:// or https:// address."""
    import httpx2

    if response.status_code not in (301, 302, 303, 307, 308):
        return None
    where = blank(str(response.url))
    try:
        target = response.url.join(response.headers["Location"])
        host = target.host
    except (KeyError, httpx2.InvalidURL, ValueError):
        raise HttpError(Trouble.REFUSED, f"{where} redirects to nowhere") from None
    if target.scheme not in ("http", "https") or not host:
        raise HttpError(Trouble.REFUSED, f"{where} redirects to {blank(str(target))}: only http(s) is followed")
    return target


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may follow a redirect to another host."""
    return {name: value for name, value in headers.items() if name.lower() in _HARMLESS}


def same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether two addresses are of one host, so that a credential for the one is one for the other."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
