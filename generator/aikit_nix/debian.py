"""The Debian package set: this machine's mirror, and the lock that pins the .debs.

A lock names every .deb by sha256. It is renewed from a mirror's signed index: only the root packages are
named here, the rest follows from their dependencies, since sonames and versions change from one index to the next.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aikit_nix import data
from aikit_nix.errors import AikitError, Diagnostic, Severity, error

if TYPE_CHECKING:
    from datetime import datetime

    from aikit_nix.debian_archive import Index
    from aikit_nix.debian_index import Package

MIRROR = "AIKIT_DEBIAN_MIRROR"  # read here and by the fetching derivations: URLs separated by blanks
SNAPSHOT = "http://snapshot.debian.org/archive/debian"  # keeps every file that Debian ever published
LOCK = data.NIX / "packages/debian/lock.json"

# The suites that have llama.cpp with one backend a CPU type. sid's fixes come first; testing is whole when sid is
# in the middle of a transition.
SUITES = ("sid", "testing")

# What the image holds, and what builds it: root packages, whose dependencies follow.
_ROOTS = {
    "engine": ("llama.cpp-tools",),
    "tools": ("python3-minimal", "libpython3-stdlib", "patchelf", "busybox-static", "ca-certificates"),
}

# Dependencies that nothing here uses. A name that leaves Debian does no harm, a new dependency is just added.
_LEFT_OUT = frozenset(
    {
        "debconf",  # asks questions at installation
        "wget",  # for llama.cpp's conversion scripts
        "curl",
        "libc-gconv-modules-extra",  # character sets beyond UTF-8
        "openssl-provider-legacy",  # outdated ciphers
        "openssl",  # update-ca-certificates
        # Modules of Python's library that the image tool does not import.
        "media-types",
        "netbase",
        "tzdata",
        "libbz2-1.0",
        "libdb5.3t64",
        "libffi8",
        "liblzma5",
        "libncursesw6",
        "libreadline8t64",
        "libsqlite3-0",
        "libtinfo6",
        "libuuid1",
    }
)


# --- Mirrors


def build_environment() -> dict[str, str]:
    """What `nix build` needs in its environment on this machine: its mirror, unless that is set already."""
    if os.environ.get(MIRROR) is not None or (mirror := machine_mirror()) is None:
        return {}
    # The program that fetches speaks plain HTTP (the hashes make it safe), which Debian's mirrors do too.
    return {MIRROR: re.sub(r"^https:", "http:", mirror)}


def machine_mirror(apt: Path = Path("/etc/apt")) -> str | None:
    """This machine's mirror: the first of AIKIT_DEBIAN_MIRROR, or what apt reads the main archive from."""
    if given := os.environ.get(MIRROR, "").split():
        return given[0].rstrip("/")
    sources = [source for file in _apt_files(apt) for source in _apt_sources(file)]
    candidates = [source for source in sources if source.is_main_archive()]
    return max(candidates, key=_Source.likeness).uri.rstrip("/") if candidates else None


@dataclass(frozen=True)
class _Source:
    """One archive that apt reads packages from."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str

    def likeness(self) -> int:
        """How much says that this is Debian's archive: others use its suites' and components' names too."""
        path = urlsplit(self.uri).path.rstrip("/")
        return 2 * ("debian-archive-keyring" in self.signed_by) + path.endswith("/debian")

    def is_main_archive(self) -> bool:
        return (
            self.uri.startswith(("http://", "https://"))
            and "main" in self.components
            and "-" not in self.suite  # bookworm-security, bookworm-updates, bookworm-pgdg
            and not urlsplit(self.uri).path.rstrip("/").endswith("-security")
            and self.likeness() > 0
        )


def _apt_files(apt: Path) -> list[Path]:
    folder = apt / "sources.list.d"
    return [
        file
        for file in (apt / "sources.list", *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list")))
        if file.is_file()
    ]


def _apt_sources(file: Path) -> list[_Source]:
    """sources.list(5): the deb822 format, or one line an archive. What cannot be read is not there."""
    from aikit_nix.debian_index import stanzas

    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    if file.suffix == ".sources":
        for fields in stanzas(text):
            if (
                fields.get("enabled", "yes").lower() in ("no", "false", "0")
                or "deb" not in fields.get("types", "").split()
            ):
                continue
            found += [
                _Source(uri, suite, tuple(fields.get("components", "").split()), fields.get("signed-by", ""))
                for uri in fields.get("uris", "").split()
                for suite in fields.get("suites", "").split()
            ]
    for line in text.splitlines() if file.suffix == ".list" else ():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            found.append(_Source(match[2], match[3], tuple(match[4].split()), match[1] or ""))
    return found


# --- The lock


@dataclass(frozen=True)
class Lock:
    """lock.json: the pinned .debs by name; `engine` are those in the image, `tools` only build it."""

    suite: str
    date: str  # of the index, ISO 8601
    snapshot: str  # a time at which the snapshot archive has all of the files
    engine: tuple[str, ...]
    tools: tuple[str, ...]
    packages: Mapping[str, Package]

    @classmethod
    def read(cls, file: Path) -> Lock:
        """Raises AikitError when the file is no lock."""
        from aikit_nix.debian_index import Package

        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            packages = {
                name: Package.parse({"package": name, **{key: str(value) for key, value in entry.items()}})
                for name, entry in content["packages"].items()
            }
            groups = {group: tuple(map(str, content[group])) for group in _ROOTS}
            if not all(name in packages for group in groups.values() for name in group):
                raise ValueError("it lacks packages that it names")
            return cls(content["suite"], content["date"], content["snapshot"], packages=packages, **groups)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AikitError) as exception:
            raise error(
                f"{file} is no lock of Debian packages ({exception}): write one with `aikit-nix debian-lock`"
            ) from None

    def to_json(self) -> str:
        packages = {
            name: {"version": p.version, "filename": p.filename, "sha256": p.sha256, "size": p.size}
            for name, p in sorted(self.packages.items())
        }
        content = {
            "suite": self.suite,
            "date": self.date,
            "snapshot": self.snapshot,
            "engine": self.engine,
            "tools": self.tools,
            "packages": packages,
        }
        return json.dumps(content, indent=2) + "\n"

    def write(self, file: Path) -> None:
        """All or nothing."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
                new.write(self.to_json())
            Path(new.name).chmod(0o644)
            Path(new.name).replace(file)
        except OSError as exception:
            raise error(f"{file} cannot be written ({exception.strerror}): name another file with -o") from None


def renew(
    mirror: str, *, suites: Sequence[str] = SUITES, keyring: Path | None = None
) -> tuple[Lock, tuple[Diagnostic, ...]]:
    """What to pin now, by a mirror's index, and warnings: from the first suite that has all that is needed.

    Raises AikitError where the mirror, the signature, a hash or every suite's dependencies do not do.
    """
    from aikit_nix.debian_archive import KEYRING, read_index

    warnings: list[Diagnostic] = []
    for suite in suites:
        index = read_index(mirror.rstrip("/"), suite, keyring or KEYRING)
        warnings += index.warnings
        try:
            return _lock(index), tuple(warnings)
        except AikitError as exception:
            problem = exception
            warnings += [replace(each, severity=Severity.WARNING) for each in exception.diagnostics]
    raise problem


def _lock(index: Index) -> Lock:
    from aikit_nix.debian_index import closure

    groups = {group: tuple(closure(roots, _LEFT_OUT, index.packages)) for group, roots in _ROOTS.items()}
    return Lock(
        index.codename,
        index.date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        _snapshot(index.date),
        packages={name: index.packages[name] for group in groups.values() for name in group},
        **groups,
    )


def _snapshot(date: datetime) -> str:
    """A time for the snapshot archive, which answers with what it saw last before that.

    It looks in some time after the mirrors; an index's files stay there for a day and a half.
    """
    from datetime import timedelta

    return (date + timedelta(hours=12)).strftime("%Y%m%dT%H%M%SZ")


def download_size(lock: Lock) -> int:
    """How many bytes a first build downloads."""
    return sum(package.size for package in lock.packages.values())


# --- What is still there


def missing(lock: Lock, mirrors: Sequence[str]) -> list[Package]:
    """The pinned .debs that none of the mirrors has, nor the snapshot archive.

    A mirror has a file when it offers one of the pinned size; a mirror that does not answer has none.
    """
    from concurrent.futures import ThreadPoolExecutor

    from aikit_nix.debian_archive import answers, has

    left = sorted(lock.packages.values(), key=lambda package: package.name)
    for mirror in (*mirrors, f"{SNAPSHOT}/{lock.snapshot}"):
        if left and answers(mirror):
            with ThreadPoolExecutor(8) as pool:
                here = list(pool.map(lambda package, mirror=mirror: has(mirror, package), left))
            left = [package for package, found in zip(left, here, strict=True) if not found]
    return left


def mirrors(given: Iterable[str] = ()) -> list[str]:
    """The mirrors to ask: those given, or AIKIT_DEBIAN_MIRROR's, or apt's. Raises AikitError if there is none."""
    found = list(given) or os.environ.get(MIRROR, "").split()
    if not found and (own := machine_mirror()):
        found = [own]
    if not found:
        raise error(f"this machine has no Debian mirror in /etc/apt: set {MIRROR} or --mirror (http://MIRROR/debian)")
    return found
