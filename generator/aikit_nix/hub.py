"""The head of a file behind a URL, for `init`."""

from __future__ import annotations

import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING

import click

from aikit_nix import __version__
from aikit_nix.errors import AikitError, error

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_SECONDS = 30
_MAX_HEAD = 256 * 1024 * 1024


def sha256_of(address: str) -> str:
    """Download a file to nowhere and hash it, with a progress bar on a terminal. Raises AikitError."""
    digest = hashlib.sha256()
    with open_url(address, last=None) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        read = 0
        bar: ProgressBar[int] = click.progressbar(length=size, label="reading the whole file", file=sys.stderr)
        with bar:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                read += len(chunk)
                bar.update(len(chunk))
        if read < size:
            raise error(f"{address} ended after {read} of {size} bytes: try again")
    return digest.hexdigest()


@contextmanager
def open_url(
    address: str, last: int | None = _MAX_HEAD, *, more: Mapping[str, str] | None = None
) -> Iterator[HTTPResponse]:
    """What an address gives, up to the byte `last`. Raises AikitError, also for what fails while it is read."""
    headers = {"User-Agent": f"aikit-nix/{__version__}", **(more or {})} | (
        {"Range": f"bytes=0-{last}"} if last else {}
    )
    # http and https only: source.read and endpoint() see to it
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            yield answer
    except AikitError:
        raise
    except urllib.error.HTTPError as refused:
        hint = {
            401: ": the repository is private, gated or not there; Nix downloads without a token",
            403: ": the repository is gated; Nix downloads without a token",
            404: ": check the name",
        }.get(refused.code, ": try again later")
        raise error(f"{address} answered {refused.code}{hint}") from None
    except (OSError, HTTPException, ValueError) as failed:
        reason = getattr(failed, "reason", None) or failed
        raise error(f"{address} cannot be read: {' '.join(str(reason).split())}") from None
