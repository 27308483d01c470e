"""Tars that take who reads them for a fool."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aikit_nix.base import tar
from support import layouts, tars

END = bytes(1024)


def read(data: bytes, most: int = tar.MOST_MEMBERS, *, seeks: bool = False) -> list[tar.Member]:
    return list(tar.TarReader(tar.unpacked(io.BytesIO(data)), most=most, seeks=seeks))


def names(data: bytes, most: int = tar.MOST_MEMBERS) -> list[str]:
    """What is read as a stream; by seeking the same is read."""
    try:
        found: list[tar.Member] | str = read(data, most, seeks=True)
    except ValueError as bad:
        found = str(bad)
    try:
        streamed = read(data, most)
    except ValueError as bad:
        assert isinstance(found, str)
        raise bad from None
    assert found == streamed
    return [member.name for member in streamed]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_honest_member_is_read_as_it_was_written(kind: int) -> None:
    """Long names, large numbers and links have honest uses."""
    file = io.BytesIO()
    long = "a/" * (40 if kind == tarfile.USTAR_FORMAT else 2000) + "u"
    with tarfile.open(fileobj=file, mode="w", format=kind) as made:
        for name, flag, link, content in (
            ("folder", tarfile.DIRTYPE, "", b""),
            (long, tarfile.REGTYPE, "", b"x" * 1000),
            ("link", tarfile.SYMTYPE, long[:90], b""),
            ("hard", tarfile.LNKTYPE, "link", b""),
            ("pipe", tarfile.FIFOTYPE, "", b""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = flag, link, len(content), 0o640
            made.addfile(member, io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as again:
        wanted = [(each.name, each.type, each.size, each.mode, each.linkname) for each in again]
    found = read(file.getvalue())
    assert [(each.name, each.kind.value, each.size, each.mode, each.link) for each in found] == wanted
    start = found[1].start
    assert file.getvalue()[start : start + 1000] == b"x" * 1000


def test_a_file_of_many_gigabytes_and_one_without_utf_8_are_read() -> None:
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        large = tarfile.TarInfo("large")
        large.size = 9 << 30
        (member,) = itertools.islice(tar.TarReader(io.BytesIO(large.tobuf(kind) + END)), 1)
        assert member.size == 9 << 30
    head = tars.head("x", lambda content: content.__setitem__(slice(0, 1), b"\xff"))
    assert names(head + END) == ["\udcff"]


def test_known_records_are_passed_over_and_unknown_ones_refused() -> None:
    known = {"comment": " " * 3000, "mtime": "1.5", "uname": "ü", "SCHILY.xattr.user.x": "y"}
    assert names(tars.records(known) + tars.head("x") + END) == ["x"]
    assert names(tars.records({"comment": "commit"}, b"g") + tars.head("x") + END) == ["x"]
    for other in ("hdrcharset", "GNU.sparse.name", "SCHILY.realsize", "Path", "path "):
        with pytest.raises(ValueError, match="not every reader knows"):
            names(tars.records({other: "1"}) + tars.head("x") + END)


@pytest.mark.parametrize("bomb", layouts.bombs().values(), ids=layouts.bombs())
def test_what_costs_more_than_it_weighs_is_refused(bomb: bytes) -> None:
    for data in (bomb, layouts.layer(("honest", b"1")).rstrip(b"\0").ljust(1024, b"\0") + bomb):
        with pytest.raises(ValueError, match=r"^a member "):
            names(data)


@pytest.mark.parametrize("data", tars.tricks().values(), ids=tars.tricks())
def test_what_readers_understand_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        names(data)


@given(st.integers(0, 2047), st.integers(1, 255))
@settings(deadline=None)
def test_no_changed_byte_of_a_head_goes_unseen(at: int, by: int) -> None:
    data = bytearray(tars.head("first") + tars.head("second", size=3) + b"abc".ljust(512, b"\0") + bytes(512))
    data[at] ^= by
    if 1024 <= at < 1027:  # the content
        assert names(bytes(data + bytes(512))) == ["first", "second"]
        return
    with pytest.raises(ValueError, match=r"\w"):
        names(bytes(data + bytes(512)))


def test_no_end_of_members_is_one() -> None:
    many = layouts.layer(*((str(number), b"") for number in range(11)))
    assert len(names(many, most=11)) == 11
    with pytest.raises(ValueError, match="more than 10 files and folders"):
        names(many, most=10)


def test_zeros_without_an_end_are_not_read() -> None:
    with pytest.raises(ValueError, match="behind the end"):
        names(gzip.compress(tars.head("x") + bytes(64 << 20)))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damage_of_every_kind_is_one_kind_of_error(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(layouts.layer(*((str(number), str(number).encode() * 500) for number in range(100))))
    assert len(read(packed)) == 100
    for at, bit in itertools.product(range(0, len(packed), 37), (1, 128)):
        damaged = bytearray(packed)
        damaged[at] ^= bit
        for data in (bytes(damaged), packed[:at]):
            try:
                read(data)
            except ValueError as said:
                assert str(said).isprintable()  # not every flipped bit is noticed


def test_trouble_with_a_disk_stays_what_it_is() -> None:
    class Full(io.RawIOBase):
        def read(self, _: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(tar.TarReader(Full()))
