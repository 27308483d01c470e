"""The Debian package set's lock: which .debs it pins, renewed from a mirror's signed index.

Nothing but the root packages is named here: sonames and versions change from one suite to the next, so the rest
follows from the packages' own dependencies. Debian's formats are read by a few lines of our own (deb-control(5),
deb-version(7)): the library for them, python-debian, is under the GPL, which this project's licence does not fit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import error

SUITE = "sid"  # llama.cpp with one backend per CPU type is in sid and in the release after trixie
ARCHITECTURE = "amd64"

# What the image holds, and what builds it: root packages, whose dependencies follow.
ROOTS = {
    "engine": ("llama.cpp-tools",),
    "tools": ("python3-minimal", "libpython3-stdlib", "patchelf", "busybox-static", "ca-certificates"),
}

# Dependencies that nothing here uses: a name that leaves Debian does no harm, a new dependency is simply added.
LEFT_OUT = frozenset(
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


# --- The formats


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file; a field's lines are joined as they stand, names are lower-case."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        if fields := _fields(paragraph):
            yield fields


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()
    return fields


def _order(part: str) -> list[tuple[int, ...]]:
    """deb-version(7): text and digits in turn; `~` before the end, the end before letters, letters before the rest."""
    key: list[tuple[int, ...]] = []
    for text, digits in re.findall(r"(\D*)(\d*)", part):
        rank = [-1 if c == "~" else ord(c) + (0 if c.isalpha() else 256) for c in text]
        key += [(*rank, 0), (int(digits or 0),)]
    return key


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A Debian version, ordered as dpkg orders them."""

    text: str

    def _key(self) -> tuple[int, list[tuple[int, ...]], list[tuple[int, ...]]]:
        epoch, colon, rest = self.text.partition(":")
        if not colon:
            epoch, rest = "0", self.text
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
        return int(epoch), _order(upstream), _order(revision)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.text)

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()


_COMPARE = {
    "<<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    ">=": lambda a, b: a >= b,
    ">>": lambda a, b: a > b,
}
_RELATION = re.compile(r"^([a-z0-9][a-z0-9+.-]+)(?::\w+)?\s*(?:\(\s*(<<|<=|=|>=|>>)\s*([^\s)]+)\s*\))?$")


@dataclass(frozen=True)
class Relation:
    """One alternative of a dependency: a package, and which versions of it do."""

    name: str
    operator: str | None
    version: str | None

    def accepts(self, version: str) -> bool:
        if self.operator is None or self.version is None:
            return True
        return bool(_COMPARE[self.operator](Version(version), Version(self.version)))


def relations(field: str) -> Iterator[tuple[Relation, ...]]:
    """A Depends field: each dependency with its alternatives."""
    for group in filter(None, (part.strip() for part in field.split(","))):
        alternatives = []
        for text in group.split("|"):
            match = _RELATION.match(text.strip())
            if not match:
                raise error(f"Debian's index has a dependency that cannot be read: {text.strip()!r}")
            alternatives.append(Relation(match[1], match[2], match[3]))
        yield tuple(alternatives)


# --- The lock


@dataclass(frozen=True)
class Package:
    """A binary package as the index describes it. `size` is in bytes, `filename` relative to the archive's root."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    depends: str

    @classmethod
    def parse(cls, fields: dict[str, str]) -> Package:
        try:
            package = cls(
                fields["package"],
                fields["version"],
                fields["filename"],
                fields["sha256"].lower(),
                int(fields["size"]),
                ", ".join(filter(None, (fields.get("pre-depends"), fields.get("depends")))),
            )
        except (KeyError, ValueError) as e:
            raise error(f"Debian's index has a package that cannot be read: {fields.get('package')}: {e}") from None
        if not re.fullmatch(r"[0-9a-f]{64}", package.sha256) or not re.fullmatch(r"pool/[\w/.+~:-]+\.deb", package.filename):
            raise error(f"Debian's index has a package that cannot be read: {package.name}")
        return package


def closure(roots: Iterable[str], index: dict[str, Package]) -> list[str]:
    """The root packages and all that they depend on, without LEFT_OUT, sorted."""
    found: set[str] = set()
    todo = [(root, (Relation(root, None, None),)) for root in roots]
    while todo:
        wanted_by, alternatives = todo.pop()
        if any(a.name in LEFT_OUT or a.name in found for a in alternatives):
            continue
        chosen = next((a.name for a in alternatives if a.name in index and a.accepts(index[a.name].version)), None)
        if chosen is None:
            wish = " | ".join(" ".join(filter(None, (a.name, a.operator, a.version))) for a in alternatives)
            raise error(f"the Debian suite cannot give {wanted_by} what it needs ({wish}): try again later, or another mirror")
        found.add(chosen)
        todo += [(chosen, group) for group in relations(index[chosen].depends)]
    return sorted(found)
