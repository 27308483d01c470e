"""Tars byte by byte: what no honest program writes."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping

END = bytes(1024)


def head(
    name: str,
    change: Callable[[bytearray], object] = lambda _: None,
    *,
    kind: bytes = b"0",
    size: int = 0,
    link: str = "",
) -> bytes:
    """A member's head, changed, with the sum that belongs to it."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    content = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    change(content)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def file(name: str, content: bytes) -> bytes:
    """A member that is a file."""
    return head(name, size=len(content)) + content + bytes(-len(content) % 512)


def records(values: Mapping[str, str], kind: bytes = b"x") -> bytes:
    """pax' records, as they stand before a member."""
    data = b""
    for key, value in values.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length += 1
        data += str(length).encode() + line
    return raw(data, kind)


def raw(data: bytes, kind: bytes = b"x") -> bytes:
    """Any bytes as records."""
    return head("records", kind=kind, size=len(data)) + data + bytes(-len(data) % 512)


def long(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's way to write a long name."""

    def gnu(content: bytearray) -> None:
        content[257:265] = b"ustar  \0"

    return head("././@LongLink", gnu, kind=kind, size=len(name)) + name + bytes(-len(name) % 512)


def put(at: int, data: bytes) -> Callable[[bytearray], None]:
    """What to change in a head."""

    def change(content: bytearray) -> None:
        content[at : at + len(data)] = data

    return change


def tricks(evil: bytes = b"evil", path: str = "etc/ld.so.preload") -> dict[str, bytes]:
    """Tars in which one reader sees a file at `path` that another does not see there."""
    honest, hidden = file("honest", b"1"), file(path, evil)
    first = hidden[:512]
    two_names = put(345, b"p"), put(257, b"ustar  \0")

    def both(content: bytearray) -> None:
        for change in two_names:
            change(content)

    sum_behind_nul = bytearray(hidden)
    sum_behind_nul[148:156] = b"\0" + sum_behind_nul[148:154] + b" "
    return {
        name: data + END
        for name, data in {
            "an empty path": records({"path": ""}) + hidden,
            "an empty size": raw(b"8 size=\n") + hidden,
            "an empty linkpath": records({"linkpath": ""}) + head("a", kind=b"2", link=path),
            "no records": raw(b"") + hidden,
            "records twice": records({"path": "a"}) + records({"path": path}) + hidden,
            "a record twice": raw(b"10 path=a\n12 path=etc\n") + hidden,
            "x and then g": records({"path": "a"}) + records({"comment": "c"}, b"g") + hidden,
            "x and then L": records({"path": "a"}) + long(path.encode() + b"\0") + hidden,
            "L and then x": long(b"a\0") + records({"path": path}) + hidden,
            "L before a POSIX head": long(b"a\0") + hidden,
            "L with two names": long(b"a\0b\0") + hidden,
            "L without an end": long(b"a") + hidden,
            "records for all": records({"path": "a"}, b"g") + hidden,
            "Solaris' X": records({"path": "a"}, b"X") + hidden,
            "GNU.sparse.name": records({"GNU.sparse.name": path}) + file("a", evil),
            "GNU.sparse.realsize": records({"GNU.sparse.realsize": "1"}) + hidden,
            "another size": records({"size": "0"}) + hidden,
            "a size with a sign": records({"size": "+4"}) + hidden,
            "a size with an underscore": head(path, put(124, b"1_0\0"), size=8) + evil,
            "a length that lies": raw(b"99 path=a\n") + hidden,
            "a length with a zero": raw(b"011 path=a\n") + hidden,
            "a NUL in a path": records({"path": f"{path}\0x"}) + hidden,
            "STAR's trailer": head(path, put(508, b"tar\0"), size=4) + hidden[512:],
            "another version": head(path, put(263, b"  "), size=4) + hidden[512:],
            "a prefix in GNU's head": head("x", both),
            "a lone zero block": honest + bytes(512) + hidden,
            "a block that is not the end": honest + bytes(512) + b"x".ljust(512, b"\0"),
            "something behind the end": honest + END + hidden,
            "a sparse file": head(path, kind=b"S"),
            "a link with content": head("a", kind=b"1", link="b", size=512) + first,
            "a folder with content": head("a", kind=b"5", size=512) + first,
            "a folder's name": head("a/", put(0, b"a/\0"), size=4) + hidden[512:],
            "two of one name": honest + honest,
            "two of one place": honest + file("./x/../honest", evil),
            "two of one place, one absolute": honest + file("/honest", evil),
            "an unknown kind": head(path, kind=b"7", size=4) + hidden[512:],
            "no name": head("a", put(0, bytes(100)), size=4) + hidden[512:],
            "a size below nothing": head(path, put(124, b"\xff" * 12)),
            "a checksum behind a NUL": bytes(sum_behind_nul),
            "padding": hidden[:-1] + b"x",
            "no head": b"x" * 512,
        }.items()
    }
