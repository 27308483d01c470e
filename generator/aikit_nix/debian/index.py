"""Debian's package index: its formats, and which packages a root package needs.

A few lines of our own (deb-control(5), deb-version(7)): the library for these formats, python-debian, is
under the GPL, which does not go with this project's licence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from aikit_nix.aikitfile.reader import short
from aikit_nix.base.errors import error
from aikit_nix.base.typed_json import Sha256, convert, form
from aikit_nix.nix import store


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file; a field's lines are joined as they stand, names are lower-case."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        if fields := _fields(paragraph):
            yield fields


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.split("\n"):
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
    """deb-version(7): text and numbers in turn; in text `~` sorts before the end, that before letters."""
    key: list[tuple[int, ...]] = []
    for text, digits in re.findall(r"(\D*)(\d*)", part):
        rank = [-1 if c == "~" else ord(c) + (0 if c.isalpha() else 256) for c in text]
        number = digits.lstrip("0")  # which may have any length
        key += [(*rank, 0), (len(number), *map(ord, number))]
    return key


_VERSION = r"(?:[0-9]{1,9}:[A-Za-z0-9.+~:-]+|[A-Za-z0-9.+~-]+)"


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A Debian version (`_VERSION`), ordered as dpkg orders them."""

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
_RELATION = re.compile(rf"([a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\(\s*(<<|<=|=|>=|>>)\s*({_VERSION})\s*\))?", re.ASCII)


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
            match = _RELATION.fullmatch(text.strip())
            if not match:
                raise error(f"Debian's index has a dependency that cannot be read: {short(text)}")
            alternatives.append(Relation(match[1], match[2], match[3]))
        yield tuple(alternatives)


_DEB = r"pool/(main|contrib|non-free)/(?!.*\.\.)[A-Za-z0-9_/.+~:-]+\.deb"


@dataclass(frozen=True)
class Package:
    """A package as the index describes it: `size` in bytes, `filename` relative to the archive's root."""

    name: Annotated[str, form("[a-z0-9][a-z0-9+.-]*", "no name of a package")]
    version: Annotated[str, form(_VERSION, "no version")]
    filename: Annotated[str, form(_DEB, "no .deb of the archive's pool")]
    sha256: Sha256
    size: Annotated[int, Meta(gt=0, lt=1 << 34)]
    depends: str = ""
    provides: str = ""

    @property
    def component(self) -> str:
        """The part of the archive: main, contrib (free, but needs what is not) or non-free."""
        return self.filename.split("/")[1]

    @property
    def store_path(self) -> Path:
        """Where the flake's derivations have it in the Nix store (nix/packages/debian/builder.nix)."""
        return store.store_path(store.name(self.filename.rpartition("/")[2]), self.sha256)

    def to_json(self) -> dict[str, str | int]:
        return {
            "version": self.version,
            "component": self.component,
            "filename": self.filename,
            "sha256": self.sha256,
            "size": self.size,
        }

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Package:
        """A package of an index. Raises AikitError."""
        depends = ", ".join(filter(None, (fields.get("pre-depends"), fields.get("depends"))))
        own = {"name": fields.get("package"), "sha256": fields.get("sha256", "").lower(), "depends": depends}
        try:
            return convert({**fields, **own}, cls, strict=False)
        except ValueError as problem:
            name = short(fields.get("package", "(no name)"))
            raise error(f"Debian's index has a package that cannot be read: {name}: {problem}") from None


def closure(roots: Iterable[str], left_out: frozenset[str], index: Mapping[str, Package]) -> list[str]:
    """The root packages and all that they depend on, sorted, without `left_out` and what only those need."""
    found: set[str] = set()
    todo: list[tuple[str, tuple[Relation, ...]]] = [(root, (Relation(root, None, None),)) for root in roots]
    while todo:
        todo.sort(key=lambda wish: len(wish[1]))  # what leaves no choice first: it may answer the others
        wanted_by, alternatives = todo.pop(0)
        if any(a.name in left_out or a.name in found for a in alternatives):
            continue
        offers = [a.name for a in alternatives if a.name in index and a.accepts(index[a.name].version)]
        offers = offers or [name for a in alternatives for name in _providers(a, index)]
        if found.intersection(offers) or left_out.intersection(offers):
            continue
        chosen = next(iter(offers), None)
        if chosen is None:
            wish = " | ".join(" ".join(filter(None, (a.name, a.operator, a.version))) for a in alternatives)
            raise error(
                f"the mirror's index cannot give {wanted_by} what it needs ({wish}): try again tomorrow, "
                "or name another mirror with --mirror"
            )
        found.add(chosen)
        todo += [(chosen, group) for group in relations(index[chosen].depends)]
    return sorted(found)


def _providers(wanted: Relation, index: Mapping[str, Package]) -> Iterator[str]:
    """The packages that stand for a virtual one."""
    for package in index.values():
        if wanted.name in package.provides:
            for (provided,) in relations(package.provides):
                fits = wanted.operator is None or (provided.version and wanted.accepts(provided.version))
                if provided.name == wanted.name and fits:
                    yield package.name


def newest(*indices: str) -> dict[str, Package]:
    """The packages of Packages files by name; of several versions the newest."""
    found: dict[str, Package] = {}
    for fields in (fields for index in indices for fields in stanzas(index)):
        if "filename" in fields:
            package = Package.parse(fields)
            known = found.get(package.name)
            if known is None or Version(known.version) < Version(package.version):
                found[package.name] = package
    return found
