"""Tars that take who reads them for a fool."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import tarfile
from collections.abc import Callable
from typing import Literal

import pytest

from aikit_nix.base import tar
from support import layouts

MODES: tuple[Literal["r:", "r:*", "r|"], ...] = ("r:", "r:*", "r|")


def names(data: bytes, mode: Literal["r:", "r:gz", "r:*", "r|"] = "r:", most: int = tar.MOST_MEMBERS) -> list[str]:
    with tar.opened(io.BytesIO(data), mode) as archive:
        return [member.name for member in tar.members(archive, most)]


@pytest.mark.parametrize("mode", MODES)
def test_long_names_and_records_are_read(mode: Literal["r:", "r:*", "r|"]) -> None:
    """What the limits are about has honest uses too."""
    long = "a/" * 2000 + "ü"
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as made:
            made.addfile(tarfile.TarInfo(long))
        assert names(file.getvalue(), mode) == [long]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bomb", layouts.bombs().values(), ids=layouts.bombs())
def test_what_costs_more_than_it_weighs_is_refused(bomb: bytes, mode: Literal["r:", "r:*", "r|"]) -> None:
    with pytest.raises(ValueError, match=r"^(a member|the heads of a member) "):
        names(bomb, mode)
    with pytest.raises(ValueError, match=r"^(a member|the heads of a member) "):
        names(layouts.layer(("honest", b"1")).rstrip(b"\0").ljust(1024, b"\0") + bomb, mode)


def head(name: str, change: Callable[[bytearray], None]) -> bytes:
    """An entry whose head was changed, and has the sum that belongs to it."""
    content = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    change(content)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def two_names(content: bytearray) -> None:
    """A prefix, which only POSIX' format has: tarfile takes it for a part of the name in all, Go's reader does not."""
    content[345:346] = b"p"
    content[257:265] = b"ustar  \0"


@pytest.mark.parametrize("mode", MODES)
def test_what_readers_understand_differently_is_refused(mode: Literal["r:", "r:*", "r|"]) -> None:
    """Where tarfile sees the end, or another name, a container engine may see what it was to be kept from."""
    first, end = tarfile.TarInfo("first").tobuf(), bytes(1024)
    sum_behind_nul = bytearray(tarfile.TarInfo("hidden").tobuf())
    sum_behind_nul[148:156] = b"\0" + sum_behind_nul[148:154] + b" "
    assert names(first + head("plain", lambda _: None) + end, mode) == ["first", "plain"]
    for other in (bytes(sum_behind_nul), head("x", two_names), b"x" * 512, b"x" * 100):
        with pytest.raises(ValueError, match=r"checksum|header|understand differently"):
            names(first + other + (end if len(other) == 512 else b""), mode)


def test_no_end_of_members_is_one() -> None:
    many = layouts.layer(*((str(number), b"") for number in range(11)))
    assert len(names(many, most=11)) == 11
    with pytest.raises(ValueError, match="more than 10 files and folders"):
        names(many, most=10)
    back = tarfile.TarInfo("back")
    back.size = -1024  # by which tarfile comes to it again
    with pytest.raises(ValueError, match="below nothing"):
        names(back.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_damage_of_every_kind_is_one_kind_of_error(pack: type[bytes]) -> None:
    packed = pack(layouts.layer(*((str(number), str(number).encode() * 500) for number in range(100))))
    assert len(names(packed, "r:*")) == 100
    for at, bit in itertools.product(range(0, len(packed), 37), (1, 128)):
        damaged = bytearray(packed)
        damaged[at] ^= bit
        for data in (bytes(damaged), packed[:at]):
            try:
                names(data, "r:*")
            except ValueError as said:
                assert str(said).isprintable()  # not every flipped bit is noticed


def test_trouble_with_a_disk_stays_what_it_is() -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left") as raised, tar.opened(io.BytesIO(layouts.layer()), "r:"):
        raise full
    assert raised.value is full
