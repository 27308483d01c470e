"""The Debian package set: the lock that pins the .debs.

A lock names every .deb by sha256. It is renewed from a mirror's signed index: only the root packages are
named here, the rest follows from their dependencies, since sonames and versions change from one index to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Struct

from aikit_nix.base import data, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.files import read_bounded, write_atomic
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.base.typed_json import form

if TYPE_CHECKING:
    from datetime import datetime

    from aikit_nix.debian.archive import Release
    from aikit_nix.debian.index import Package

SNAPSHOT = "http://snapshot.debian.org/archive/debian"  # keeps every file that Debian ever published
_MOST_BYTES = 16 << 20  # of a lock
LOCK = data.NIX / "packages/debian/lock.json"
BUILDER = "x86_64-linux"  # whose programs put every image together: nix/packages/debian

# The suites that have llama.cpp with one backend a CPU type. sid's fixes come first; testing is whole when sid is
# in the middle of a transition.
_SUITES = ("sid", "testing")

# Root packages, whose dependencies follow: what every image holds, what it holds besides for an accelerator, and what
# builds it (on a machine of that architecture). An architecture that lacks an accelerator's root packages goes without.
_ENGINE = ("llama.cpp-tools", "base-files", "ca-certificates")
_ACCELERATORS = {
    "cuda": ("libggml0-backend-cuda",),
    "rocm": ("libggml0-backend-hip",),
    # Vulkan's loader finds the hardware's drivers: Mesa has those of AMD, Intel and others.
    "vulkan": ("libggml0-backend-vulkan", "mesa-vulkan-drivers"),
}
_TOOLS = ("python3-minimal", "libpython3-stdlib", "patchelf", "busybox-static")

# Dependencies that nothing here uses. A name that leaves Debian does no harm, a new dependency is just added.
_LEFT_OUT = frozenset(
    {
        "awk",  # for maintainer scripts
        "debconf",  # asks questions at installation
        "wget",  # for llama.cpp's conversion scripts
        "curl",
        "libc-gconv-modules-extra",  # character sets beyond UTF-8
        "openssl-provider-legacy",  # outdated ciphers
        "openssl",  # update-ca-certificates
        "libcuda1",  # NVIDIA's driver: the host's is mounted into the container
        "libclang-common-21-dev",  # headers, for compiling HIP code from source
    }
)
_LEFT_OUT_OF_TOOLS = frozenset(
    {
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


# --- The lock


class _Architecture(Struct):
    engine: tuple[str, ...]
    accelerators: Mapping[str, tuple[str, ...]]
    tools: tuple[str, ...]
    packages: Mapping[str, Mapping[str, Any]]


class _Dated(Struct):
    date: str


class _Content(_Dated):
    suite: Annotated[str, form("[a-z-]+", "no suite")]
    snapshot: Annotated[str, form(r"[0-9]{8}T[0-9]{6}Z", "no time of the snapshot archive")]
    architectures: Mapping[str, _Architecture]


@dataclass(frozen=True)
class Architecture:
    """The pinned .debs of one architecture, by name; each is in one or more of the groups.

    `engine` is in every image, `accelerators` by runtime is what one of those needs besides, `tools` only build.
    """

    engine: tuple[str, ...]
    accelerators: Mapping[str, tuple[str, ...]]
    tools: tuple[str, ...]
    packages: Mapping[str, Package]

    @classmethod
    def of(cls, content: _Architecture) -> Architecture:
        """Of what the lock says. Raises ValueError."""
        from aikit_nix.debian.index import Package

        packages = {name: typed_json.convert({**deb, "name": name}, Package) for name, deb in content.packages.items()}
        found = cls(content.engine, content.accelerators, content.tools, packages)
        if not all(name in packages for group in found.groups() for name in group):
            raise ValueError("it lacks packages that it names")
        return found

    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (self.engine, *self.accelerators.values(), self.tools)

    def builders(self) -> tuple[Package, ...]:
        """The packages that build images on a machine of this architecture."""
        return tuple(self.packages[name] for name in self.tools)

    def image(self, runtime: str) -> tuple[Package, ...]:
        """The packages that the image of a runtime is made from."""
        return tuple(self.packages[name] for name in (*self.engine, *self.accelerators.get(runtime, ())))

    def to_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "accelerators": self.accelerators,
            "tools": self.tools,
            "packages": {name: package.to_json() for name, package in sorted(self.packages.items())},
        }


@dataclass(frozen=True)
class DebianLock:
    """lock.json: the .debs pinned from one index, by Debian's name of the architecture."""

    suite: str
    date: str  # of the index, ISO 8601
    snapshot: str  # a time at which the snapshot archive has all of the files
    architectures: Mapping[str, Architecture]

    @classmethod
    def read(cls, file: Path) -> DebianLock:
        """Raises AikitError when the file is no lock."""
        with typed_json.refusing(f"{file} is no lock of Debian packages", "write one with `aikit-nix debian-lock`"):
            content = typed_json.decode(read_bounded(file, _MOST_BYTES), _Content)
            if lacks := set(ARCHITECTURES.values()) - content.architectures.keys():
                raise ValueError(f"it lacks {min(lacks)}")
            architectures = {name: Architecture.of(content.architectures[name]) for name in ARCHITECTURES.values()}
        return cls(content.suite, content.date, content.snapshot, architectures)

    @staticmethod
    def date_of(file: Path) -> datetime | None:
        """When the index of a lock of any format was made; None where the file is no lock."""
        from datetime import datetime

        try:
            date = datetime.fromisoformat(typed_json.decode(read_bounded(file, _MOST_BYTES), _Dated).date)
        except (AikitError, ValueError):
            return None
        return date if date.tzinfo else None

    def packages(self) -> list[Package]:
        """All packages, each file once: some are of every architecture."""
        found = {p.filename: p for each in self.architectures.values() for p in each.packages.values()}
        return [found[filename] for filename in sorted(found)]

    def to_json(self) -> str:
        content = {
            "suite": self.suite,
            "date": self.date,
            "snapshot": self.snapshot,
            "architectures": {name: each.to_json() for name, each in self.architectures.items()},
        }
        return typed_json.encode(content, ascii_only=True)

    def write(self, file: Path) -> None:
        """All or nothing. Raises AikitError."""
        write_atomic(file, self.to_json().encode(), 0o644)


def renew(
    mirror: str,
    replaced: datetime | None = None,
    *,
    keyring: Path | None = None,
    allow_older: bool = False,
) -> tuple[DebianLock, tuple[Diagnostic, ...]]:
    """What to pin now, by a mirror's index, and warnings: from the first suite that has all that is needed.

    An index that has expired, or is older than that of the lock to be `replaced`, may hide security updates: it is
    refused unless `allow_older`. Raises AikitError also where the mirror, the signature, a hash or every suite's
    dependencies do not do.
    """
    from aikit_nix.debian.archive import KEYRING, Archive

    with Archive(mirror, keyring or KEYRING) as archive:
        warnings: list[Diagnostic] = []
        for suite in _SUITES:
            release = archive.release(suite)
            for problem in _ages(release, mirror, replaced):
                if not allow_older:
                    raise error(
                        f"{problem}: name another with --mirror, or take it with --allow-older", code="old-index"
                    )
                warnings.append(Diagnostic(Severity.WARNING, "old-index", problem))
            indices = {name: archive.packages(release, name) for name in ARCHITECTURES.values()}
            try:
                return _lock(release, indices), tuple(warnings)
            except AikitError as exception:
                problem_of_suite = exception
                warnings += [replace(each, severity=Severity.WARNING) for each in exception.diagnostics]
        raise problem_of_suite


def _ages(release: Release, mirror: str, replaced: datetime | None) -> Iterator[str]:
    from datetime import UTC, datetime

    if release.valid_until and release.valid_until < datetime.now(UTC):
        yield (
            f"the index of {mirror} is of {release.date:%d %B %Y} and was valid until {release.valid_until:%d %B %Y}: "
            "the mirror is behind"
        )
    if replaced and release.date < replaced:
        yield (
            f"the index of {mirror} is of {release.date:%d %B %Y %H:%M}, older than the packages that are pinned now "
            f"({replaced:%d %B %Y %H:%M})"
        )


def _lock(release: Release, indices: Mapping[str, Mapping[str, Package]]) -> DebianLock:
    architectures = {name: _architecture(index) for name, index in indices.items()}
    return DebianLock(
        release.codename, release.date.strftime("%Y-%m-%dT%H:%M:%SZ"), _snapshot(release.date), architectures
    )


def _architecture(index: Mapping[str, Package]) -> Architecture:
    from aikit_nix.debian.index import closure

    engine = tuple(closure(_ENGINE, _LEFT_OUT, index))
    accelerators = {
        runtime: tuple(name for name in closure(roots, _LEFT_OUT, index) if name not in engine)
        for runtime, roots in _ACCELERATORS.items()
        if all(root in index for root in roots)
    }
    tools = tuple(closure(_TOOLS, _LEFT_OUT | _LEFT_OUT_OF_TOOLS, index))
    names = {*engine, *tools, *(name for group in accelerators.values() for name in group)}
    return Architecture(engine, accelerators, tools, {name: index[name] for name in names})


def _snapshot(date: datetime) -> str:
    """A time for the snapshot archive, which answers with what it saw last before that.

    It looks in some time after the mirrors; an index's files stay there for a day and a half.
    """
    from datetime import timedelta

    return (date + timedelta(hours=12)).strftime("%Y%m%dT%H%M%SZ")


def needed(lock: DebianLock, system: str, runtime: str) -> set[Package]:
    """What a build of a runtime's image for a Nix system downloads: the image's packages and the tools."""
    image, tools = (lock.architectures[ARCHITECTURES[each]] for each in (system, BUILDER))
    return {*image.image(runtime), *tools.builders()}


# --- What is still there


def missing(lock: DebianLock, mirrors: Sequence[str], wanted: Iterable[Package] | None = None) -> list[Package]:
    """The pinned .debs, or those `wanted` of them, that none of the mirrors has, nor the snapshot archive.

    A mirror has a file when it offers one of the pinned size. Raises AikitError where none of them answers.
    """
    from aikit_nix.debian.archive import offers

    left = lock.packages() if wanted is None else list(wanted)
    for _, here in offers([*mirrors, f"{SNAPSHOT}/{lock.snapshot}"], left):
        left = [package for package in left if package not in here]
    return left
