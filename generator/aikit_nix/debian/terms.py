"""Who maintains a Debian package, and under which licences it is: as the package itself says, read with bounds.

Source: deb(5), deb-control(5), Debian Policy 12.5 and its machine-readable copyright files (DEP 5). Licences have Debian's
short names there; those that are another name of one that SPDX knows are given as SPDX'.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from aikit_nix.base import files, tar
from aikit_nix.debian.index import Package, stanzas

MOST_BYTES = 64 << 20  # of a package: what is larger is not unpacked for this
_MAX_TEXT = 1 << 20
_MOST_UNPACKED = 1 << 30
_AR, _AR_HEAD = b"!<arch>\n", 60
_SPDX = {
    "Expat": "MIT",
    "MIT-no-attribution": "MIT-0",
    "zlib": "Zlib",
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    "GPL-2": "GPL-2.0-only",
    "GPL-3": "GPL-3.0-only",
    "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-3": "LGPL-3.0-only",
    "GPL-1+": "GPL-1.0-or-later",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-3+": "GPL-3.0-or-later",
    "LGPL-2+": "LGPL-2.0-or-later",
    "LGPL-2.1+": "LGPL-2.1-or-later",
    "LGPL-3+": "LGPL-3.0-or-later",
}


@dataclass(frozen=True)
class Terms:
    """What a package says; no licences where its copyright file is not machine-readable, or in a package that is not here."""

    maintainer: str | None = None
    licenses: tuple[str, ...] = ()


def of(package: Package, others: Mapping[str, Package]) -> Terms:
    """What a package says whose .deb is in this machine's store; nothing where it is not, or cannot be read.

    `others` are those, by name, that its folder of documentation may be a link to.
    """
    try:
        fields = next(stanzas(_control(package)), {})
        text, link = _copyright(package)
        if link in others and link != package.name:
            text, _ = _copyright(others[link])
        return Terms(fields.get("maintainer"), tuple(sorted(set(_licenses(text)))))
    except (OSError, ValueError, EOFError, lzma.LZMAError, RecursionError):
        return Terms()


def _control(package: Package) -> str:
    for name, content in _members(package, "control.tar"):
        if name == "/control":
            return content.decode(errors="replace")
    return ""


def _copyright(package: Package) -> tuple[str, str]:
    """The copyright file, or the package whose it is."""
    folder = f"/usr/share/doc/{package.name}"
    if package.size > MOST_BYTES:
        return "", ""
    for name, content in _members(package, "data.tar"):
        if name == f"{folder}/copyright":
            return content.decode(errors="replace"), ""
        if name == folder:  # a link, as those of folders are passed over
            return "", content.decode(errors="replace")
    return "", ""


def _members(package: Package, part: str) -> Iterator[tuple[str, bytes]]:
    """Small files of a part of a .deb, and where links lead. Raises ValueError, EOFError, LZMAError and OSError."""
    with files.open_regular(package.store_path) as stream:
        if stream.read(len(_AR)) != _AR:
            raise ValueError("it is no .deb")
        while head := stream.read(_AR_HEAD):
            size = int(head[48:58])
            if size < 0:
                raise ValueError("it has a part of less than nothing")
            if head[:16].decode(errors="replace").startswith(part):
                yield from _files(tar.unpacked(io.BytesIO(stream.read(min(size, MOST_BYTES)))))
                return
            stream.seek(size + size % 2, io.SEEK_CUR)


def _files(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    reader = tar.TarReader(stream)
    for member in reader:
        if member.start > _MOST_UNPACKED:
            raise ValueError("it unpacks to too much")
        name = posixpath.normpath(f"/{member.name}")
        if member.kind is tar.MemberKind.LINK:
            yield name, posixpath.basename(member.link).encode()
        elif (
            member.kind is tar.MemberKind.FILE
            and member.size <= _MAX_TEXT
            and name.endswith(("/control", "/copyright"))
        ):
            yield name, b"".join(reader.content())


def _licenses(text: str) -> Iterator[str]:
    fields = list(stanzas(text))
    if not fields or "format" not in fields[0]:
        return
    for each in fields:
        if "files" in each or each is fields[0]:
            for name in re.split(r",? (?:and|or) |, ", each.get("license", "").partition("\n")[0]):
                if name.strip():
                    yield _SPDX.get(name.strip(), name.strip())
