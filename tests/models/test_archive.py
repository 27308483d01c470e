"""Archives out of registries: their files enter the store, and what is odd about them ends in one error."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base import process
from aikit_nix.base.errors import AikitError
from aikit_nix.models import archive
from aikit_nix.models.remote import Remote
from aikit_nix.nix import store
from support.artifacts import tar
from support.locks import digest


def remote() -> Remote:
    text = "apiVersion: v1alpha1\nmodels:\n  - {name: my-model, source: 'oci://h.example/ns/m:1'}\n"
    (model,) = parse(text.encode(), "aikitfile.yaml")[0].models
    return Remote(model, "", "https://h.example/v2/ns/m/blobs/x", None, None, private=True, is_archive=True)


def refused(folder: Path, data: bytes) -> str:
    (folder / "blob").write_bytes(data)
    with pytest.raises(AikitError) as raised:
        archive.add_members(folder / "blob", remote())
    said = str(raised.value)
    assert said.startswith("error: aikitfile.yaml:3:")
    assert len(said.splitlines()) == 1
    assert [file.name for file in folder.iterdir()] == ["blob"]
    return said


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.usefixtures("nix")
def test_every_file_enters_the_store_by_itself(tmp_path: Path, mode: str) -> None:
    new = os.urandom(16)  # in no store yet
    (tmp_path / "blob").write_bytes(tar({"./weights/m.gguf": new * 1000, "a.json": b"{}"}, mode))
    found = archive.add_members(tmp_path / "blob", remote())
    assert [path for path, _ in found] == ["/models/a.json", "/models/weights/m.gguf"]
    pin = found[1][1]
    assert (pin.sha256, pin.size, pin.member) == (digest(new * 1000), 16_000, "./weights/m.gguf")
    assert (pin.url, pin.private, bool(pin.layer)) == (remote().url, True, True)
    path = store.store_path("m.gguf", pin.sha256)
    process.run(["nix-store", "--verify-path", path])
    assert path.read_bytes() == new * 1000
    assert [file.name for file in tmp_path.iterdir()] == ["blob"]


def members(*infos: tarfile.TarInfo, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as made:  # type: ignore[call-overload]
        for info in infos:
            made.addfile(info, io.BytesIO(bytes(info.size)))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


def garbled(data: bytes) -> bytes:
    return data[:12] + b"\xff" * 28 + data[40:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar({"m.gguf": b"x" * 9999}, link="l"), "'l' in an archive, which is no regular file"),
        (members(member("h", tarfile.LNKTYPE, target="/etc/passwd")), "no regular file"),
        (members(member("d", tarfile.CHRTYPE)), "no regular file"),
        (members(member("p", tarfile.FIFOTYPE)), "no regular file"),
        (tar({"../m.gguf": b"x"}), "which would leave /models"),
        (tar({"a/../../m.gguf": b"x"}), "which would leave /models"),
        (tar({"/etc/m.gguf": b"x"}), "begins with `/`"),
        (tar({"a\nb": b"x"}), "U+000A"),
        (tar({"a\x1b]0;t\x07": b"x"}), "U+001B"),
        (tar({"a\\b": b"x"}), "an odd path"),
        (tar(dict.fromkeys("abcd", b"")), "more than 3 files"),
        (members(member("s", tarfile.GNUTYPE_SPARSE)), "sparse"),
        (tar({"m.gguf": bytes(70 << 20)}, "w:gz"), "which no model does"),
        (members(member("s", size=1 << 10))[:600], "cannot be read"),
        (tar({"m.gguf": os.urandom(9999)}, "w:gz")[:-100], "cannot be read"),
        (garbled(tar({"m.gguf": os.urandom(9999)}, "w:gz")), "cannot be read"),
        (garbled(tar({"m.gguf": os.urandom(9999)}, "w:xz")), "cannot be read"),
        (garbled(tar({"m.gguf": os.urandom(9999)}, "w:bz2")), "cannot be read"),
        (tar({"m.gguf": os.urandom(9 << 20)}, "w:bz2")[: 8 << 20] + bytes(1 << 20), "cannot be read"),
        (b"no archive", "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.usefixtures("nix")
def test_an_archive_that_no_model_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    monkeypatch.setattr(archive, "_MOST_FILES", 3)
    assert message in refused(tmp_path, data)


def long_name(size: int) -> bytes:
    """The head of a name that is so long, and stands in the archive as a member of its own."""
    return member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size).tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: long_name(64 << 20) + bytes(64 << 20), "a head of 67.1 MB"),  # in memory, were it read
        (lambda: (long_name(512) + b"a" * 511 + b"\0") * 2000, "several heads"),
        (lambda: members(*(member(str(number), tarfile.DIRTYPE) for number in range(2001))), "files and folders"),
    ],
    ids=["long", "nested", "folders"],
)
def test_an_archive_of_nothing_but_heads_costs_little(tmp_path: Path, make: Callable[[], bytes], message: str) -> None:
    assert message in refused(tmp_path, gzip.compress(make(), 1))
