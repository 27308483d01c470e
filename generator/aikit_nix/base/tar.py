"""Tars from elsewhere, read strictly: what two readers would understand differently is refused.

The heads are parsed here and by nobody else. Read are POSIX' ustar, pax' records as far as they are known, and GNU's long
names (POSIX.1-2024, pax, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format"). Container engines in Go, GNU
tar and Python agree on what is left; sparse files, STAR's heads, records for all members and doubled names are not.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import IO, cast

from aikit_nix.base import console

MOST_MEMBERS = 1 << 19  # each is remembered by its name
_BLOCK = 1 << 20
_FREE_BYTES = 64 << 20
_HEAD = 512  # bytes of a head, and what content is padded to
_LONGEST = 64 << 10  # bytes of records, or of a long name
_POSIX, _GNU, _OLDEST = b"ustar\x0000", b"ustar  \0", bytes(8)
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
# pax' own records, and those of others that no reader takes for the name, the kind or the size.
_KNOWN = {"path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "atime", "ctime", "comment"}
_KNOWN |= {"LIBARCHIVE.creationtime", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags"}
_HARMLESS = ("SCHILY.xattr.", "SCHILY.acl.", "LIBARCHIVE.xattr.", "RHT.security.")
_PACKED = (
    (rb"\x1f\x8b", gzip.open),
    (rb"BZh[1-9]1AY&SY", bz2.open),
    (rb"\xfd7zXZ\0", lzma.open),
)


class MemberKind(Enum):
    """What a member is, by its type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    LINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    FOLDER = b"5"
    PIPE = b"6"


@dataclass(frozen=True)
class Member:
    """A member; `start` is where its content lies in the (unpacked) tar, `link` where a link leads."""

    name: str
    kind: MemberKind
    size: int  # bytes
    mode: int
    link: str
    start: int


def place(name: str) -> str:
    """Where what unpacks a tar puts a member of a name, below its folder: `/a`, `./a` and `../a` are `a`."""
    return posixpath.normpath("/" + name.lstrip("/"))[1:]


def unpacked(stream: IO[bytes]) -> IO[bytes]:
    """A seekable tar packed with gzip, bzip2 or xz, or not at all, as its bytes."""
    start = stream.read(10)
    stream.seek(0)
    packed = next((each for magic, each in _PACKED if re.match(magic, start)), None)
    return cast("IO[bytes]", packed(stream)) if packed else stream


def most_unpacked(size: int) -> int:
    """The bytes that so many may unpack to: weights hardly shrink, so what gives more is a bomb."""
    return _FREE_BYTES + 20 * size


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """All bytes of what may be packed. Raises ValueError for damage, OSError."""
    reader = TarReader(stream)
    while block := reader.read(_BLOCK):
        yield block


class TarReader:
    """The members of a tar, in their order. `seeks`: content that nobody asks for is passed over by a seek.

    Iteration and `content` raise ValueError for damage and for what is ambiguous or costs more than it weighs; OSError is
    the file's own.
    """

    def __init__(self, stream: IO[bytes] | io.RawIOBase, *, most: int = MOST_MEMBERS, seeks: bool = False) -> None:
        self._stream = stream
        self._most = most
        self._at = 0
        self._left = 0  # bytes of the member at hand that nobody has read
        self._end = stream.seek(0, io.SEEK_END) if seeks else None
        if seeks:
            stream.seek(0)

    def __iter__(self) -> Iterator[Member]:
        names: set[str] = set()
        while member := self._member():
            name = place(member.name)
            if name in names:
                raise ValueError(f"there are two members {member.name[:100]!r}")
            if len(names) >= self._most:
                raise ValueError(f"there are more than {self._most} files and folders in it")
            names.add(name)
            self._left = member.size
            yield member
            self._pass_over()
            self._padding(member.size)

    def content(self) -> Iterator[bytes]:
        """What is left of the content of the member at hand, in blocks."""
        while self._left:
            block = self.read(min(_BLOCK, self._left))
            if not block:
                raise ValueError("it ends within a member")
            self._left -= len(block)
            yield block

    def _member(self) -> Member | None:
        """The next member with what stands before it; None at the end."""
        records: dict[str, str] = {}
        long: dict[bytes, str] = {}
        while head := self._head():
            kind, size = head[156:157], _number(head[124:136])
            if kind == b"g" and not (records or long):
                if self._records(head, size).keys() - {"comment"}:
                    raise ValueError("there are records for all members, which only some readers heed")
            elif kind == b"x" and not (records or long):
                records = self._records(head, size)
            elif kind in (b"L", b"K") and kind not in long and not records:
                long[kind] = self._long_name(head, size)
            elif kind in b"gxLK":
                raise ValueError("a member has several heads before it, which readers understand differently")
            else:
                return self._described(head, records, long)
        if records or long:
            raise ValueError("it ends behind the records of a member")
        return None

    def _described(self, head: bytes, records: dict[str, str], long: dict[bytes, str]) -> Member:
        magic, kind = head[257:265], head[156:157]
        if (records and magic != _POSIX) or (long and magic != _GNU):
            raise ValueError("a member has a head of another format than the one before it")
        prefix = _text(head[345:500])
        name = long.get(b"L") or f"{prefix}/" * bool(prefix) + _text(head[:100])
        link = records.get("linkpath") or long.get(b"K") or _text(head[157:257])
        name = records.get("path") or name
        size, known = _number(head[124:136]), records.get("size")
        if known is not None:
            if not re.fullmatch("0|[1-9][0-9]{0,18}", known) or size not in (0, int(known)):
                raise ValueError("a member has two sizes")
            size = int(known)
        try:
            what = MemberKind(kind if kind != b"\0" else MemberKind.FILE.value)
        except ValueError:
            sparse = " (a sparse file)" if kind == b"S" else ""
            raise ValueError(f"a member is of the kind {kind!r}{sparse}, which not every reader knows") from None
        if not name.strip("/") or "\0" in name + link:
            raise ValueError("a member has no name, or one with a NUL in it")
        if what is not MemberKind.FILE and size:
            raise ValueError(f"{name[:100]!r} is no file, and has a size")
        if name.endswith("/") and what is not MemberKind.FOLDER:
            raise ValueError(f"{name[:100]!r} has the name of a folder, and is none")
        if (what in (MemberKind.LINK, MemberKind.HARD_LINK)) != bool(link):
            raise ValueError(f"{name[:100]!r} is a link that leads nowhere, or leads somewhere and is no link")
        return Member(name.rstrip("/"), what, size, _number(head[100:108]), link, self._at)

    def _head(self) -> bytes | None:
        """The next head, checked; None at the end of the tar, behind which nothing may stand."""
        head = self._exactly(_HEAD)
        if not self._at:
            raise ValueError("it is empty")
        if not any(head):
            if head and self._exactly(_HEAD) != bytes(_HEAD):
                raise ValueError("it ends with a lone block of zeros")
            if any(rest := self._exactly(_BLOCK)) or len(rest) == _BLOCK:
                raise ValueError("there is something behind the end of it, or a lone block of zeros within it")
            return None
        if head[148:156] != b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 0x20):
            raise ValueError("a member has a head with another checksum")
        magic = head[257:265]
        if magic not in (_POSIX, _GNU, _OLDEST) or any(head[500:] if magic == _POSIX else head[345:]):
            raise ValueError("a member has a head that readers understand differently")
        for field in (head[100:108], head[108:116], head[116:124], head[136:148]):
            _number(field, signed=True)
        return head

    def _records(self, head: bytes, size: int) -> dict[str, str]:
        """pax' records: each once, none empty, all of them known."""
        if head[257:265] != _POSIX:
            raise ValueError("a member has records in a head that is not POSIX'")
        data, found = self._before(size), {}
        while data:
            match = _RECORD.match(data)
            length = int(match[1]) if match else 0
            if match is None or data[length - 1 : length] != b"\n" or length <= match.end() + 1:
                raise ValueError("a member has records that are empty, or none")
            key = match[2].decode()
            if key in found or not (key in _KNOWN or key.startswith(_HARMLESS)):
                raise ValueError(f"a member has a record {key[:60]!r} that is doubled, or that not every reader knows")
            binary = key.startswith(_HARMLESS)
            found[key] = "" if binary else data[match.end() : length - 1].decode()
            data = data[length:]
        if not found:
            raise ValueError("a member has a head for records, and none in it")
        return found

    def _long_name(self, head: bytes, size: int) -> str:
        name, nul, rest = self._before(size).partition(b"\0")
        if head[257:265] != _GNU or not name or not nul or rest:
            raise ValueError("a member has a long name that readers understand differently")
        return name.decode(errors="surrogateescape")

    def _before(self, size: int) -> bytes:
        """What a head of no member holds."""
        if size > _LONGEST:
            raise ValueError(f"a member has a head of {console.size(size)}")
        data = self._exactly(size)
        if len(data) != size:
            raise ValueError("it ends within a head")
        self._padding(size)
        return data

    def _pass_over(self) -> None:
        if self._end is None:
            for _ in self.content():
                pass
        elif self._at + self._left > self._end:
            raise ValueError("it ends within a member")
        elif self._left:
            self._at = self._stream.seek(self._at + self._left)

    def _padding(self, size: int) -> None:
        padding = self._exactly(-size % _HEAD)
        if len(padding) != -size % _HEAD or any(padding):
            raise ValueError("a member is not padded with zeros")

    def _exactly(self, size: int) -> bytes:
        """So many bytes, fewer at the end only."""
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read(self, size: int) -> bytes:
        """At most so many of the next bytes, whatever they belong to; none at the end."""
        try:
            data = self._stream.read(size) or b""
        except (EOFError, zlib.error, lzma.LZMAError) as bad:
            raise ValueError(f"it is packed badly ({bad})") from None
        except OSError as bad:
            if bad.errno is None:  # gzip's and bz2's, about the data
                raise ValueError(f"it is packed badly ({bad})") from None
            raise
        self._at += len(data)
        return data


def _number(field: bytes, *, signed: bool = False) -> int:
    """A number in octal digits, or in GNU's binary form, which may be below nothing where that means nothing to us."""
    if match := _OCTAL.fullmatch(field):
        return int(match[1] or b"0", 8)
    if field[0] == 0x80 or (signed and field[0] == 0xFF):
        return int.from_bytes(field[1:])
    raise ValueError("a member has a head with a number that is none, or below nothing")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")
