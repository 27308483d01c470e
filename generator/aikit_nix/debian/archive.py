"""A Debian archive over HTTP: its signed index, and which files it has.

Nothing that a mirror says is believed before Debian's signature is checked, so until then all of it has a bound.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from aikit_nix.base import process, redact
from aikit_nix.base.errors import error
from aikit_nix.debian.index import Package, newest, stanzas
from aikit_nix.http import client as http

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_COMPONENTS = ("main", "contrib", "non-free")
_RELEASE_LIMIT = 4 << 20  # bytes; sid's has 0.2 MB
_PACKED_LIMIT = 128 << 20  # bytes of a packed index; main's has 11 MB
_INDEX_LIMIT = 512 << 20  # bytes of an unpacked one; main's has 56 MB
_GPGV_SECONDS = 30

_FOR_RELEASE = http.Timeouts(answer=60, attempts=2)
_FOR_INDEX = http.Timeouts(answer=600, attempts=2)
_FOR_QUESTION = http.Timeouts(answer=30, attempts=2)


@dataclass(frozen=True)
class Release:
    """What Debian signed about a suite: its dates, and size and sha256 of its index files by name."""

    folder: str  # URL
    codename: str
    date: datetime
    valid_until: datetime | None
    by_hash: bool
    files: Mapping[str, tuple[str, int]]


class Archive:
    """A mirror and the keys that must have signed what it says. Every method raises AikitError."""

    def __init__(self, mirror: str, keyring: Path) -> None:
        self._mirror = mirror.rstrip("/")
        self._keyring = keyring
        self._release = http.Client(_FOR_RELEASE)
        self._index = http.Client(_FOR_INDEX)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._release.close()
        self._index.close()

    def release(self, suite: str) -> Release:
        folder = f"{self._mirror}/dists/{suite}"
        where = f"{folder}/InRelease"
        signed = _fetched(self._release, where, _RELEASE_LIMIT)
        fields = next(stanzas(_verified(signed, where, self._keyring)), {})
        if suite not in (fields.get("suite"), fields.get("codename")):
            raise error(f"{where} is of another suite: name another mirror with --mirror")
        return Release(
            folder,
            fields.get("codename", suite),
            _date(fields, "date", where),
            _date(fields, "valid-until", where) if "valid-until" in fields else None,
            fields.get("acquire-by-hash") == "yes",
            _files(fields.get("sha256", "")),
        )

    def packages(self, release: Release, architecture: str) -> dict[str, Package]:
        """All packages of an architecture by name. Not every archive has a contrib or a non-free."""
        names = [f"{component}/binary-{architecture}/Packages.xz" for component in _COMPONENTS]
        if names[0] not in release.files:
            raise error(f"{release.folder}/InRelease names no {names[0]}: name another mirror with --mirror")
        return newest(*(self._read(release, name) for name in names if name in release.files))

    def _read(self, release: Release, name: str) -> str:
        sha256, size = release.files[name]
        # By its hash, so that a mirror that is updated in between does no harm.
        place = f"{name.rpartition('/')[0]}/by-hash/SHA256/{sha256}" if release.by_hash else name
        url = f"{release.folder}/{place}"
        if size > _PACKED_LIMIT:
            raise error(f"{url} has {size:,} bytes, more than an index of Debian's ever had")
        return _unpacked(_fetched(self._index, url, size), sha256, url)


def _fetched(client: http.Client, url: str, limit: int) -> bytes:
    try:
        return client.get(url, limit=limit).body
    except http.HttpError as problem:
        raise error(
            f"{problem.message}: set AIKIT_DEBIAN_MIRROR or --mirror to a Debian mirror that answers", code=problem.code
        ) from None


def _date(fields: Mapping[str, str], name: str, where: str) -> datetime:
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(fields[name].replace("UTC", "+0000")).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        raise error(f"{where} has no {name} that can be read: name another mirror with --mirror") from None


def _files(listing: str) -> dict[str, tuple[str, int]]:
    lines = (re.fullmatch(r"([0-9a-f]{64})\s+([0-9]{1,15})\s+(\S+)", line.strip()) for line in listing.splitlines())
    return {line[3]: (line[1], int(line[2])) for line in lines if line}


_SIGNED = re.compile(
    rb"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+: [^\n]*\n)*\n"
    rb"(?P<text>.*?)\n"
    rb"(?P<signature>-----BEGIN PGP SIGNATURE-----\n[^-]*-----END PGP SIGNATURE-----)\n?",
    re.DOTALL,
)


def _verified(signed: bytes, where: str, keyring: Path) -> str:
    """The text that Debian signed: at least one of the signatures must be by a key of the keyring.

    gpgv gets text and signature apart, as apt does it: given a whole message it would also unpack others than this
    kind, without a bound.
    """
    if not keyring.is_file():
        raise error(f"{keyring} is missing, and with it Debian's keys: apt-get install debian-archive-keyring")
    parts = _SIGNED.fullmatch(signed)
    if not parts or re.search(rb"^-(?! )", parts["text"], re.MULTILINE):
        raise error(f"{where} is not signed by a key of {keyring} (no signed text): name another mirror with --mirror")
    # RFC 9580, 7: a dash at the start of a line is escaped, blanks at the end of a line are not signed.
    text = re.sub(rb"[ \t\r]+$", b"", re.sub(rb"^- ", b"", parts["text"], flags=re.MULTILINE), flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("Release", text), ("Release.gpg", parts["signature"] + b"\n")):
            Path(folder, name).write_bytes(content)
        status = process.run(
            [
                "gpgv",
                "--status-fd",
                "1",
                "--keyring",
                keyring,
                Path(folder, "Release.gpg"),
                Path(folder, "Release"),
            ],
            check=False,
            timeout=_GPGV_SECONDS,
        )
    said = {line.split()[1] for line in status.splitlines() if line.startswith("[GNUPG:] ") and len(line.split()) > 1}
    if "GOODSIG" not in said or "BADSIG" in said:
        problem = " ".join(sorted(said & _BAD_SIGNATURE)) or "no signature"
        raise error(
            f"{where} is not signed by a key of {keyring} ({problem}): "
            "name another mirror with --mirror, or update debian-archive-keyring"
        )
    return text.decode("utf-8", errors="replace")


_BAD_SIGNATURE = {"BADSIG", "ERRSIG", "NO_PUBKEY", "EXPKEYSIG", "REVKEYSIG", "EXPSIG", "NODATA"}


def _unpacked(packed: bytes, sha256: str, url: str) -> str:
    import hashlib
    import lzma

    if hashlib.sha256(packed).hexdigest() != sha256:
        raise error(f"{url} is not what the signed index says (sha256 {sha256}): try again, or another mirror")
    try:
        # The signature vouches for it, but not that it fits into memory.
        with lzma.open(io.BytesIO(packed)) as unpacked:
            text = unpacked.read(_INDEX_LIMIT + 1)
    except (lzma.LZMAError, EOFError) as bad:
        raise error(f"{url} cannot be unpacked ({bad}): name another mirror with --mirror") from None
    if len(text) > _INDEX_LIMIT:
        raise error(f"{url} unpacks to more than {_INDEX_LIMIT:,} bytes: try another mirror")
    return text.decode("utf-8", errors="replace")


def offers(mirrors: Iterable[str], packages: Iterable[Package]) -> Iterator[tuple[str, set[Package]]]:
    """For each mirror that answers, which of the packages it has and no mirror before it.

    Raises AikitError where some are left, and none of the mirrors answered.
    """
    asked, left, answered = list(mirrors), list(packages), False
    for mirror in asked:
        if left and (here := having(mirror, left)) is not None:
            answered = True
            yield mirror, here
            left = [package for package in left if package not in here]
    if left and not answered:
        raise error(
            f"{' and '.join(map(redact.blank, asked))} cannot be reached: is there a network? Or name a mirror that answers"
            " in AIKIT_DEBIAN_MIRROR",
            code="http-unreachable",
        )


def having(mirror: str, packages: Iterable[Package]) -> set[Package] | None:
    """Those of the packages that a mirror offers, by their sizes; None where it does not answer."""
    from concurrent.futures import ThreadPoolExecutor

    first, *others = packages
    with http.Client(_FOR_QUESTION) as client, ThreadPoolExecutor(8) as pool:
        try:
            found = {first} if _has(client, mirror, first) else set()
        except http.HttpError:
            return None  # one question without an answer, not one for each package

        def has(package: Package) -> bool:
            try:
                return _has(client, mirror, package)
            except http.HttpError:
                return False

        return found | {package for package, here in zip(others, pool.map(has, others), strict=True) if here}


def _has(client: http.Client, mirror: str, package: Package) -> bool:
    """Raises HttpError where the mirror does not answer."""
    try:
        answer = client.head(f"{mirror.rstrip('/')}/{quote(package.filename)}")
    except http.HttpError as problem:
        if problem.trouble is http.Trouble.STATUS:
            return False
        raise
    # Another host's file is there as far as this one says.
    return answer.status >= 300 or answer.headers.get("Content-Length") in (None, str(package.size))


def bring(mirrors: Iterable[str], packages: Iterable[Package], scratch: Path) -> None:
    """Bring .debs into the Nix store, under the paths that a flake looks for, each from the first mirror that has it.

    What is half-done stays in the folder `scratch` for the next time. Raises AikitError for what cannot be had.
    """
    from aikit_nix.models import download
    from aikit_nix.models.download import Fetched
    from aikit_nix.models.origin import Download
    from aikit_nix.nix import store

    def item(package: Package, mirror: str) -> Download:
        return Download(
            f"{mirror.rstrip('/')}/{quote(package.filename)}",
            scratch / package.sha256,
            package.store_path.name[33:],
            size=package.size,
            sha256=package.sha256,
        )

    def then(fetched: Fetched) -> None:
        store.add(fetched.file, fetched.download.name, fetched.digests.sha256, consume=True)
        fetched.file.unlink()

    left = list(packages)
    with http.Client() as client:
        for mirror, here in offers(mirrors, left):
            download.fetch_all([item(package, mirror) for package in left if package in here], client, then=then)
            left = [package for package in left if package not in here]
    if left:
        raise error(
            f"no mirror has {left[0].filename}{f' and {len(left) - 1} more' if left[1:] else ''}: name one in"
            " AIKIT_DEBIAN_MIRROR, or pin today's versions with `aikit-nix debian-lock`, then `aikit-nix gen --debian-lock`"
        )
