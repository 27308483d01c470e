"""An image's layers laid over each other in a folder, for a machine without a container engine.

Layers may come from anywhere: nothing in them is written outside the folder, and nothing of them at all before their digest
was seen. Owners are not kept: the files belong to who unpacks them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from aikit_nix.base import tar
from aikit_nix.base.errors import error
from aikit_nix.base.tar import Member, MemberKind
from aikit_nix.image.layout import Image, Layer

_DEEPEST = 200  # folders: Python 3.11 removes them by recursion


class UnpackError(ValueError):
    """A layer that is not what a layer must be; the message says where."""


def make(image: Image, root: Path) -> dict[str, Path]:
    """Lay the image of a layout into the new folder `root`.

    Models stay where they are in the Nix store: the paths of those, with the files to mount there, are given back.
    Raises AikitError.
    """
    root.mkdir()
    models: dict[str, Path] = {}
    for layer in image.layers:
        file = image.model_file(layer.model) if layer.model else None
        if layer.model and file and file.is_file():
            models[layer.model] = file
            try:
                place = _place(layer.model, root)
                if place == root:
                    raise UnpackError("it is the root of the image")
                place.parent.mkdir(parents=True, exist_ok=True)
                remove(place)  # it may be a link
                place.touch()
            except (OSError, ValueError) as bad:
                raise error(f"{layer.model} cannot be placed: {bad}", code="image") from None
        else:
            _unpack(layer, image.blob(layer.digest), root)
    return models


def _unpack(layer: Layer, path: Path | None, root: Path) -> None:
    if path is None:
        what = layer.model or f"the layer {layer.digest}"
        hint = ": `aikit-nix fetch` brings it" if layer.model else ""
        raise error(f"{what} is not on this machine{hint}", code="missing-blob")
    if layer.digest != layer.diff_id:
        raise error(f"{path} is packed: unpack the image with skopeo or umoci", code="image")
    try:
        with path.open("rb") as stream:
            if f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" != layer.digest:
                raise error(f"{path} has other bytes than its digest says", code="image")
            stream.seek(0)
            reader = tar.TarReader(stream)
            for member in reader:
                extract(member, reader.content(), root)
    except (OSError, ValueError) as bad:
        raise error(f"{path} cannot be unpacked: {' '.join(str(bad).split())[:300]}", code="image") from None


def extract(member: Member, content: Iterable[bytes], root: Path) -> None:
    """Lay one entry of a layer over what is in `root`. Raises UnpackError and OSError."""
    path = _place(member.name, root)
    if path == root:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == ".wh..wh..opq":
        for below in path.parent.iterdir():
            remove(below)
        return
    if path.name.startswith(".wh."):
        hidden = path.name.removeprefix(".wh.")
        if hidden in ("", ".", ".."):
            raise UnpackError(f"the layer's entry {member.name!r} hides no file")
        remove(path.with_name(hidden))
        return
    if not (member.kind is MemberKind.FOLDER and path.is_dir() and not path.is_symlink()):
        remove(path)
    match member.kind:
        case MemberKind.FOLDER:
            path.mkdir(exist_ok=True)
            path.chmod(_mode(member) | 0o700)  # later layers still write into it
        case MemberKind.LINK:
            path.symlink_to(member.link)
        case MemberKind.HARD_LINK:
            os.link(_place(member.link, root), path, follow_symlinks=False)
        case MemberKind.FILE:
            with path.open("xb") as file:
                file.writelines(content)
            path.chmod(_mode(member))
        case _:
            raise UnpackError(f"the layer's entry {member.name!r} is a device or a pipe")


def _mode(member: Member) -> int:
    return member.mode & 0o7777  # the field holds any number


def _place(name: str, root: Path) -> Path:
    """Where an entry of that name goes."""
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts:
        raise UnpackError(f"the layer's entry {name!r} leaves the image")
    path = root.joinpath(*parts)
    # Not Path.resolve, which in Python 3.11 raises RuntimeError for links that lead to each other
    top, parent = (Path(os.path.realpath(folder)) for folder in (root, path.parent))
    if parts and not parent.is_relative_to(top):
        raise UnpackError(f"the layer's entry {name!r} leads out of the image through a symlink")
    if len(parent.parts) - len(top.parts) > _DEEPEST:
        raise UnpackError(f"a layer's entry lies below more than {_DEEPEST} folders")
    return path


def remove(path: Path) -> None:
    """A file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
