"""Tars from elsewhere, read with bounds: Python's tarfile takes each of them at its word."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal, Self, cast

from aikit_nix.base import console

MOST_MEMBERS = 1 << 19  # about 1 kB of memory each
_BLOCK = 1 << 20
# What stands before a member, of any size, and is read at once: pax records, long names.
_HEADS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_HEAD = 64 << 10  # bytes


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as bad:
            if any(buf):  # tarfile takes it for the end as it does zeros, and other readers may go on
                raise tarfile.ReadError(str(bad)) from None
            raise
        if buf[257:263] != b"ustar\0" and any(buf[345:500]):
            raise ValueError("a member has a head that readers understand differently")  # a part of its name, or a time
        if member.type in _HEADS and member.size > _LONGEST_HEAD:
            raise ValueError(f"a member has a head of {console.size(member.size)}")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError("a member is a sparse file")
        return member

    def _sparse(self, *_: Any) -> None:
        """A map of any length, in the records or before the content. No public way leads there."""
        raise ValueError("a member is a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


@contextmanager
def opened(stream: IO[bytes] | io.RawIOBase, mode: Literal["r:", "r:gz", "r:*", "r|"]) -> Iterator[tarfile.TarFile]:
    """A tar whose `members` are read in the block.

    Raises ValueError, from the block too, for damage and for what costs more than it weighs; OSError is the file's own.
    """
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode=mode, bufsize=_BLOCK, tarinfo=_Member) as archive:
            yield archive
    except RecursionError:
        raise ValueError("the heads of a member nest too deep") from None  # one before the other, without an end
    except (tarfile.TarError, EOFError, zlib.error) as bad:
        raise ValueError(" ".join(str(bad).split())[:200]) from None
    except OSError as bad:
        if bad.errno is None:  # gzip's and bz2's, about the data
            raise ValueError(" ".join(str(bad).split())[:200]) from None
        raise


def members(archive: tarfile.TarFile, most: int = MOST_MEMBERS) -> Iterator[tarfile.TarInfo]:
    """The members, at most so many. Raises ValueError."""
    for count, member in enumerate(archive):
        if count >= most:
            raise ValueError(f"there are more than {most} files and folders in it")
        if member.size < 0:  # by which Python 3.11's tarfile goes back, for ever
            raise ValueError("a member has a size below nothing")
        yield member
