"""Where an image is that a command is told of: a flake, an OCI layout, a docker-archive, a registry."""

from __future__ import annotations

import re
from pathlib import Path

from aikit_nix.base import data
from aikit_nix.base.errors import error
from aikit_nix.flakes import inputs, materials
from aikit_nix.flakes.write import PLAN
from aikit_nix.image import layout
from aikit_nix.image.layout import Image
from aikit_nix.nix import command as nix


def layout_of(text: str, output: str = "manifest") -> Image:
    """The image of an OCI layout or of a flake, an output of which is built without its models. Raises AikitError."""
    folder = Path(text)
    return layout.read_layout(folder if layout.is_layout(folder) else build(text, output))


def image_of(text: str, *, insecure: bool | None = None) -> Image:
    """The image that a user names: a file that is a docker-archive, a folder with an OCI layout or a flake, or a name in
    a registry, of several there the one for this machine. Raises AikitError.
    """
    if Path(text).is_dir() or text == str(data.FLAKE):
        return layout_of(text)
    from aikit_nix.http.client import Client
    from aikit_nix.image import blobs

    here = materials.architecture()
    with Client() as client, blobs.opened(text, client, insecure=insecure, architecture=here) as found:
        return found.image


def stream_of(text: str) -> tuple[Image, Path]:
    """The image of a flake, and the script that writes it as a docker-archive. Raises AikitError."""
    return layout.read_layout(build(text, "manifest")), build(text, "stream")


def build(text: str, output: str) -> Path:
    """An output of a flake: of a folder that has one, or by a reference as Nix takes it. Raises AikitError."""
    folder = Path(text)
    if layout.is_layout(folder):
        raise error(
            f"{folder.resolve()} is an OCI layout, which no container engine loads: name the flake that made it, let it run"
            f" --with bubblewrap, or copy it with `skopeo copy oci:{folder} docker-daemon:NAME:TAG`",
            code="layout",
        )
    if (folder / PLAN).is_file():
        return inputs.build(folder, output)
    if (folder / "flake.nix").is_file():
        # Somebody's own, of which Nix takes what it takes
        return nix.build(nix.Flake(".", folder), output)
    if folder.is_dir():
        where = f", or name {folder / 'flake'}" if (folder / "flake" / PLAN).is_file() else ""
        raise error(
            f"{folder.resolve()} holds neither a flake nor an OCI layout: write one with `aikit-nix gen`{where}"
        )
    if folder.exists():
        raise error(f"{text} is a file, and no flake: name the folder that `aikit-nix gen` wrote")
    if not re.match(r"[a-z][a-z0-9+.-]*:", text):
        raise error(f"{text} is not there: write the flake with `aikit-nix gen`, or name its folder with --flake")
    return nix.build(nix.Flake(text), output)
