"""A Debian archive over HTTP: its signed index, and which files it has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from aikit_nix import process
from aikit_nix.debian_index import Package, newest, stanzas
from aikit_nix.errors import Diagnostic, Severity, error

if TYPE_CHECKING:
    from http.client import HTTPResponse

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_PACKAGES = "main/binary-amd64"
_TIMEOUT = 30  # seconds without a byte
_INDEX_LIMIT = 1 << 30  # bytes of an unpacked index


@dataclass(frozen=True)
class Index:
    """What a mirror's suite has, by its signature."""

    codename: str
    date: datetime
    packages: Mapping[str, Package]
    warnings: tuple[Diagnostic, ...]


def read_index(mirror: str, suite: str, keyring: Path) -> Index:
    """Raises AikitError where the mirror, the signature or a hash does not do."""
    folder = f"{mirror}/dists/{suite}"
    signed = _verified(_get(f"{folder}/InRelease"), f"{folder}/InRelease", keyring)
    release = next(stanzas(signed), {})
    if suite not in (release.get("suite"), release.get("codename")):
        raise error(f"{folder}/InRelease is of another suite: name another mirror with --mirror")
    date, warnings = _dates(release, folder)
    name = f"{_PACKAGES}/Packages.xz"
    hashes = {words[2]: words[0] for words in map(str.split, release.get("sha256", "").splitlines()) if words}
    if name not in hashes:
        raise error(f"{folder}/InRelease names no {name}: is this a Debian archive? Name another with --mirror")
    # By its hash, so that a mirror that is updated in between does no harm.
    by_hash = f"{_PACKAGES}/by-hash/SHA256/{hashes[name]}"
    url = f"{folder}/{by_hash if release.get('acquire-by-hash') == 'yes' else name}"
    packages = newest(_unpacked(_get(url), hashes[name], url))
    return Index(release.get("codename", suite), date, packages, warnings)


def _dates(release: Mapping[str, str], where: str) -> tuple[datetime, tuple[Diagnostic, ...]]:
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(release["date"].replace("UTC", "+0000"))
        until = parsedate_to_datetime(release.get("valid-until", release["date"]).replace("UTC", "+0000"))
    except (KeyError, ValueError):
        raise error(f"{where}/InRelease has no date that can be read: name another mirror with --mirror") from None
    if until >= datetime.now(UTC) or "valid-until" not in release:
        return date, ()
    message = f"the index of {where} is of {date:%d %B %Y} and was valid until {until:%d %B}: the mirror is behind"
    return date, (Diagnostic(Severity.WARNING, "mirror-outdated", message),)


def _verified(signed: bytes, where: str, keyring: Path) -> str:
    """The text that Debian signed: at least one of the signatures must be by a key of the keyring."""
    if not keyring.is_file():
        raise error(f"{keyring} is missing, and with it Debian's keys: apt-get install debian-archive-keyring")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "Release")
        Path(folder, "InRelease").write_bytes(signed)
        status = process.run(
            ["gpgv", "--status-fd", "1", "--keyring", keyring, "--output", text, Path(folder, "InRelease")],
            check=False,
        )
        said = {line.split()[1] for line in status.splitlines() if line.startswith("[GNUPG:] ")}
        if "GOODSIG" not in said or "BADSIG" in said or not text.is_file():
            problem = " ".join(sorted(said & _BAD_SIGNATURE)) or "no signature"
            raise error(
                f"{where} is not signed by a key of {keyring} ({problem}): "
                "name another mirror with --mirror, or update debian-archive-keyring"
            )
        return text.read_text(encoding="utf-8", errors="replace")


_BAD_SIGNATURE = {"BADSIG", "ERRSIG", "NO_PUBKEY", "EXPKEYSIG", "REVKEYSIG", "EXPSIG", "NODATA"}


def _unpacked(packed: bytes, sha256: str, url: str) -> str:
    import hashlib
    import lzma

    if hashlib.sha256(packed).hexdigest() != sha256:
        raise error(f"{url} is not what the signed index says (sha256 {sha256}): try again, or another mirror")
    try:
        # The signature vouches for it, but not that it fits into memory.
        text = lzma.LZMADecompressor().decompress(packed, _INDEX_LIMIT)
    except lzma.LZMAError as exception:
        raise error(f"{url} cannot be unpacked ({exception}): name another mirror with --mirror") from None
    return text.decode("utf-8", errors="replace")


def answers(mirror: str) -> bool:
    """Whether there is a server at all: one look-up that fails, not one for each package."""
    import socket

    parts = urlsplit(mirror)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), _TIMEOUT):
            return True
    except (OSError, ValueError, UnicodeError):
        return bool(os.environ.get("http_proxy"))  # the proxy may know it


def has(mirror: str, package: Package) -> bool:
    try:
        with _open(f"{mirror.rstrip('/')}/{quote(package.filename)}", "HEAD") as response:
            return response.headers.get("Content-Length") in (None, str(package.size))
    except (OSError, ValueError):
        return False


def _get(url: str) -> bytes:
    import http.client

    problem: Exception
    for _ in range(2):  # connections break
        try:
            with _open(url) as response:
                return response.read()
        except (OSError, ValueError, http.client.HTTPException) as exception:
            problem = exception
    raise error(f"{url}: {problem}: set AIKIT_DEBIAN_MIRROR or --mirror to a Debian mirror that answers")


def _open(url: str, method: str = "GET") -> HTTPResponse:
    """Raises OSError or ValueError. http and https only: mirrors come from files and the environment."""
    import urllib.error
    import urllib.request

    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("only http:// and https:// are read")
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "aikit-nix"})  # noqa: S310
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as refused:
        refused.close()
        raise
    return response
