"""Where a model comes from: one module a kind of source, for how it is written, named, pinned and fetched.

Reading a `source:` touches neither the network nor the disk; pinning and fetching do, and import what they need then.
The rules for names in the image are those of AIKit v0.11 and later, less its panics and silent misfits.
"""

from __future__ import annotations

import posixpath
from typing import TypeAlias

from aikit_nix.base.errors import RefusedError
from aikit_nix.registry.reference import Reference
from aikit_nix.sources import http, huggingface, local, oci, pages
from aikit_nix.sources.http import Web
from aikit_nix.sources.huggingface import HubFile, HubRepository
from aikit_nix.sources.local import Local
from aikit_nix.sources.names import MODELS, name_problem, scheme, unprintable

__all__ = [
    "MODELS",
    "HubFile",
    "HubRepository",
    "Local",
    "Reference",
    "RefusedError",
    "Source",
    "Web",
    "destination",
    "name_problem",
    "read",
    "several",
    "unprintable",
]

Source: TypeAlias = Web | HubFile | HubRepository | Reference | Local


def read(text: str) -> Source:
    """Understand a `source:`. Raises RefusedError, whose message says why and what to do instead."""
    if not text:
        raise RefusedError("is empty: give a URL or a file beside the aikitfile")
    if bad := unprintable(text):
        raise RefusedError(f"holds {bad}, which neither a URL nor a path may")
    match scheme(text):
        case None:
            return local.read(text)
        case "http:" | "https:":
            return pages.read(text) or http.read(text)
        case "huggingface:" | "hf:":
            return huggingface.read(text)
        case "oci:":
            return oci.read(text)
        case "file:":
            raise RefusedError("is a file: URL, which AIKit refused too: give a path relative to the aikitfile")
        case other:
            raise RefusedError(
                f"has the scheme `{other}//`, which AIKit refused too: give an http(s) URL or a file beside the aikitfile"
            )


def destination(source: Source, name: str) -> str:
    """The path in the image: of the file, or of the folder for a source of several files."""
    match source:
        case Web() | HubFile(folders=True):
            folder = posixpath.dirname(name)
        case _:
            folder = ""
    return posixpath.normpath(posixpath.join(MODELS, folder, source.file))


def several(source: Source) -> bool:
    """Whether the source stands for several files, which only its pin names."""
    return isinstance(source, HubRepository) or (isinstance(source, Reference) and not source.is_ollama)
