"""Archives in registries (KitOps, ModelPack's tar layers, oras' folders): the files in them go into the store, each by itself."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from aikit_nix import console, store
from aikit_nix.errors import AikitError, error
from aikit_nix.remote import Remote, frame_of, pin_of
from aikit_nix.sources import MODELS, RefusedError
from aikit_nix.sources.names import relative_path

if TYPE_CHECKING:
    from aikit_nix.aikitfile import Pin

_MOST_FILES = 1000
_MOST_MEMBERS = 2 * _MOST_FILES  # folders too, each of which tarfile remembers
_LONGEST_HEAD = 64 << 10  # bytes of a name or of other words on a member, which tarfile reads at once
# Weights hardly shrink: what unpacks to more than this is a bomb.
_FREE_BYTES = 64 << 20
_MOST_TIMES = 20


class _Member(tarfile.TarInfo):
    """What stands before a member may be a member itself, of any size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        head = super().frombuf(buf, encoding, errors)
        if not head.isreg() and head.size > _LONGEST_HEAD:
            raise RefusedError(f"holds an archive with a head of {console.size(head.size)}")
        if head.type == tarfile.GNUTYPE_SPARSE:
            raise RefusedError("holds an archive with a sparse file")
        return head


def add_members(file: Path, remote: Remote) -> tuple[tuple[str, Pin], ...]:
    """Put an archive's regular files into the store; gives (path in the image, pin), sorted. Raises AikitError."""
    try:
        with tarfile.open(file, mode="r:*", tarinfo=_Member) as tar:
            most = _FREE_BYTES + _MOST_TIMES * file.stat().st_size
            return tuple(sorted(_members(tar, remote, file.parent, most), key=lambda entry: entry[0]))
    except RefusedError as refused:
        raise _problem(remote, f"the source {refused}") from None
    except RecursionError:  # one head before the other, without an end
        raise _problem(remote, "the registry has an archive that cannot be read: it nests too deep") from None
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, OSError) as bad:
        if isinstance(bad, OSError) and bad.errno is not None:
            raise  # the disk's; gzip's and bz2's about their data have no number
        raise _problem(
            remote, f"the registry has an archive that cannot be read: {' '.join(str(bad).split())[:200]}"
        ) from None


def _members(tar: tarfile.TarFile, remote: Remote, scratch: Path, most: int) -> list[tuple[str, Pin]]:
    from dataclasses import replace

    from aikit_nix.hashing import Hasher
    from aikit_nix.partial import check_space

    found: dict[str, Pin] = {}
    total = 0
    for count, member in enumerate(tar):
        if count >= _MOST_MEMBERS:
            raise RefusedError(f"holds an archive of more than {_MOST_MEMBERS} files and folders")
        if member.isdir():
            continue
        if not member.isreg():
            raise RefusedError(f"holds {member.name[:100]!r} in an archive, which is no regular file")
        path = relative_path(posixpath.normpath(member.name))
        total += member.size
        if len(found) >= _MOST_FILES:
            raise RefusedError(f"holds an archive of more than {_MOST_FILES} files")
        if total > most:
            raise RefusedError(f"holds an archive that unpacks to more than {console.size(most)}, which no model does")
        check_space([(scratch / "member", member.size)])
        landing = f"{MODELS}/{path}"
        content = tar.extractfile(member)
        assert content is not None  # noqa: S101 (a regular file)
        hasher = Hasher(frame_of(landing)(member.size))
        try:
            with TemporaryDirectory(dir=scratch) as folder:
                copy = Path(folder) / "member"
                with copy.open("wb") as out:
                    while block := content.read(1 << 20):
                        hasher.update(block)
                        out.write(block)
                digests = hasher.digests()
                store.add(copy, posixpath.basename(path), digests.sha256)
        finally:
            hasher.close()
        found[landing] = replace(pin_of(replace(remote, path=landing), digests), member=member.name)
    return list(found.items())


def _problem(remote: Remote, message: str) -> AikitError:
    return error(f"`{remote.model.name.value}`: {message}", remote.model.source.at, "archive")
