"""What a .deb says of its maintainer and licences, and what a hostile one costs."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from aikit_nix.debian import terms
from aikit_nix.debian.index import Package
from aikit_nix.debian.terms import Terms
from aikit_nix.nix import store

pytestmark = pytest.mark.usefixtures("nix")

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: Expat and Apache-2.0

Files: debian/*
License: GPL-2+ or Own
 Text of it.

License: Expat
 Permission is hereby granted, License: none of it
"""


def tar(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return lzma.compress(out.getvalue())


def deb(folder: Path, name: str, control: bytes, data: bytes) -> Package:
    """A package whose .deb is in the store."""
    content = b"!<arch>\n"
    for part, each in (("debian-binary", b"2.0\n"), ("control.tar.xz", control), ("data.tar.xz", data)):
        content += (
            f"{part:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(each):<10}`\n".encode() + each + b"\n" * (len(each) % 2)
        )
    return stored(folder, name, content)


def stored(folder: Path, name: str, content: bytes) -> Package:
    file, digest = folder / f"{name}_1_amd64.deb", hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    store.add(file, file.name, digest)
    return Package(name, "1", f"pool/main/x/{file.name}", digest, len(content))


CONTROL = tar({"./control": "Package: a\nMaintainer: Jane Doe <jane@debian.org>\n"})


def doc(name: str) -> str:
    return f"./usr/share/doc/{name}/copyright"


def test_maintainer_and_licences(tmp_path: Path) -> None:
    package = deb(tmp_path, "a", CONTROL, tar({"./usr/bin/a": "x" * 9000, doc("a"): COPYRIGHT}))
    assert terms.of(package, {}) == Terms(
        "Jane Doe <jane@debian.org>", ("Apache-2.0", "GPL-2.0-or-later", "MIT", "Own")
    )


def test_a_folder_of_documentation_that_is_a_link(tmp_path: Path) -> None:
    package = deb(tmp_path, "a", CONTROL, tar({}, {"./usr/share/doc/a": "base"}))
    base = deb(tmp_path, "base", CONTROL, tar({doc("base"): COPYRIGHT}))
    assert "MIT" in terms.of(package, {"a": package, "base": base}).licenses
    assert terms.of(package, {}).licenses == ()
    itself = deb(tmp_path, "b", CONTROL, tar({}, {"./usr/share/doc/b": "b"}))
    assert terms.of(itself, {"b": itself}).licenses == ()


def test_a_text_for_people_says_no_licence_to_machines(tmp_path: Path) -> None:
    package = deb(tmp_path, "a", CONTROL, tar({doc("a"): "This is GCC.\nLicense: see there\n"}))
    assert terms.of(package, {}) == Terms("Jane Doe <jane@debian.org>")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"!<arch>\n",
        b"!<arch>\nshort",
        b"!<arch>\n" + b"control.tar.xz  " + b" " * 32 + b"x" * 10 + b"`\n",
        b"!<arch>\n" + f"{'control.tar.xz':16}{'':32}{-5:<10}`\n".encode(),
        b"!<arch>\n" + f"{'debian-binary':16}{'':32}{-60:<10}`\n".encode(),
        b"!<arch>\n" + f"{'control.tar.xz':16}{'':32}{10**9:<10}`\n".encode() + CONTROL[:50],
        b"!<arch>\n" + f"{'control.tar.xz':16}{'':32}{4:<10}`\n".encode() + b"none",
    ],
    ids=range(8),
)
def test_of_a_damaged_package_nothing_is_said(tmp_path: Path, content: bytes) -> None:
    assert terms.of(stored(tmp_path, "damaged", content), {}) == Terms()


def test_a_package_that_is_not_here_says_nothing() -> None:
    assert terms.of(Package("a", "1", "pool/main/a/a_1_amd64.deb", "1" * 64, 1), {}) == Terms()


def test_what_unpacks_to_too_much_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "_MOST_UNPACKED", 1 << 20)
    bomb = deb(tmp_path, "a", CONTROL, tar({"./zeros": "\0" * (8 << 20), "./x": "", doc("a"): COPYRIGHT}))
    assert terms.of(bomb, {}) == Terms()
    large = tar({doc("b"): COPYRIGHT + "x" * (2 << 20)})
    assert terms.of(deb(tmp_path, "b", CONTROL, large), {}).licenses == ()
