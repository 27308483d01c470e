"""Archives in registries (KitOps, ModelPack's tar layers, oras' folders): the files in them go into the store, each by itself."""

from __future__ import annotations

import posixpath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aikit_nix.base import console, tar
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.tar import MemberKind
from aikit_nix.models.remote import Remote, frame_of, judged, pin_of
from aikit_nix.nix import store
from aikit_nix.sources import MODELS, RefusedError, judge
from aikit_nix.sources.names import relative_path

if TYPE_CHECKING:
    from aikit_nix.aikitfile.types import Pin

_MOST_FILES = 1000
_MOST_MEMBERS = 2 * _MOST_FILES  # folders too, each of which is remembered


def add_members(file: Path, remote: Remote) -> tuple[tuple[str, Pin], ...]:
    """Put an archive's regular files into the store; gives (path in the image, pin), sorted. Raises AikitError."""
    try:
        with file.open("rb") as stream:
            most = tar.most_unpacked(file.stat().st_size)
            return tuple(
                sorted(
                    _members(tar.TarReader(tar.unpacked(stream), most=_MOST_MEMBERS), remote, file.parent, most),
                    key=lambda entry: entry[0],
                )
            )
    except RefusedError as refused:
        raise _problem(remote, f"the source {refused}") from None
    except ValueError as bad:
        raise _problem(
            remote, f"the registry has an archive that cannot be read: {' '.join(str(bad).split())[:200]}"
        ) from None


def _members(reader: tar.TarReader, remote: Remote, scratch: Path, most: int) -> list[tuple[str, Pin]]:
    from dataclasses import replace

    from aikit_nix.base.hashing import Hasher
    from aikit_nix.models.partial import check_space

    found: dict[str, Pin] = {}
    total = 0
    for member in reader:
        if member.kind is MemberKind.FOLDER:
            continue
        if member.kind is not MemberKind.FILE:
            raise RefusedError(f"holds {member.name[:100]!r} in an archive, which is no regular file")
        path = relative_path(posixpath.normpath(member.name))
        total += member.size
        if len(found) >= _MOST_FILES:
            raise RefusedError(f"holds an archive of more than {_MOST_FILES} files")
        if total > most:
            raise RefusedError(f"holds an archive that unpacks to more than {console.size(most)}, which no model does")
        check_space([(scratch / "member", member.size)])
        landing = f"{MODELS}/{path}"
        hasher = Hasher(frame_of(landing)(member.size))
        name = posixpath.basename(path)
        try:
            with TemporaryDirectory(dir=scratch) as folder:
                copy = Path(folder) / "member"
                with copy.open("wb") as out:
                    for block in reader.content():
                        hasher.update(block)
                        out.write(block)
                digests = hasher.digests()
                facts = judged(remote.model, name, lambda: judge.of_file(copy, name), as_is=remote.as_is)  # noqa: B023
                store.add(copy, name, digests.sha256)
        finally:
            hasher.close()
        found[landing] = replace(pin_of(replace(remote, path=landing), digests), member=member.name, gguf=facts)
    return list(found.items())


def _problem(remote: Remote, message: str) -> AikitError:
    return error(f"`{remote.model.name.value}`: {message}", remote.model.source.at, "archive")
