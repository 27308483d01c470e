"""What Hugging Face and other web servers tell about a file, for `init`; nothing else here uses the network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import click

from aikit_nix import __version__
from aikit_nix.errors import AikitError, error

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_SECONDS = 30
_MAX_ANSWER = 32 * 1024 * 1024
_MAX_HEAD = 256 * 1024 * 1024


@dataclass(frozen=True)
class File:
    """A file of a repository: its path there, and its SHA-256 in hex where it is stored as a large file."""

    path: str
    sha256: str | None


@dataclass(frozen=True)
class Place:
    """Where on Hugging Face a URL points."""

    repo: str
    revision: str
    path: str


def endpoint() -> str:
    """Hugging Face, or what HF_ENDPOINT names in its place (as for Hugging Face's own tools)."""
    named = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if named and not re.match(r"https?://[^/]", named):
        raise error(f"HF_ENDPOINT is {named!r}: it must be an http(s) URL")
    return named or "https://huggingface.co"


def url(repo: str, revision: str, path: str) -> str:
    """The address of a file."""
    return f"{endpoint()}/{quote(repo)}/resolve/{quote(revision, safe='')}/{quote(path)}"


def place(address: str) -> Place | None:
    """The file of a repository that an address means; None for other servers."""
    base = urlsplit(endpoint())
    parts = urlsplit(address)
    if parts.netloc != base.netloc:
        return None
    match = re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)", parts.path.removeprefix(base.path))
    return Place(unquote(match[1]), unquote(match[2]), unquote(match[3])) if match else None


def files(repo: str, revision: str) -> list[File]:
    """The files of a repository, all folders. Raises AikitError."""
    address = f"{endpoint()}/api/models/{quote(repo)}/tree/{quote(revision, safe='')}?recursive=true"
    with open_url(address) as answer:
        data = answer.read(_MAX_ANSWER + 1)
    try:
        entries = json.loads(data)
        return [File(str(entry["path"]), _oid(entry)) for entry in entries if entry.get("type") == "file"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise error(f"{address} gave no list of files: is {repo} a model's repository?") from None


def _oid(entry: dict[str, object]) -> str | None:
    large = entry.get("lfs")
    oid = large.get("oid") if isinstance(large, dict) else None
    return oid if isinstance(oid, str) and re.fullmatch("[0-9a-f]{64}", oid) else None


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
def open_url(address: str, last: int | None = _MAX_HEAD) -> Iterator[HTTPResponse]:
    """What an address gives, up to the byte `last`. Raises AikitError, also for what fails while it is read."""
    headers = {"User-Agent": f"aikit-nix/{__version__}"} | ({"Range": f"bytes=0-{last}"} if last else {})
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
