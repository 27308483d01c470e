"""Whether an entry of aikit.lock agrees with itself: source, origin, paths and URLs, of which each follows from the others.

A lock is a text that anybody may edit, and what it calls a model goes into bills of materials and proofs. So the name of a
repository may only stand beside the addresses of that very repository, and only beside a source that names it.
"""

from __future__ import annotations

import posixpath
import re
from typing import assert_never
from urllib.parse import urlsplit

from msgspec import structs

from aikit_nix import sources
from aikit_nix.aikitfile.types import Pin
from aikit_nix.http.proxies import is_loopback
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.registry import reference
from aikit_nix.registry.reference import DIGEST
from aikit_nix.sources import (
    HubFile,
    HubRepository,
    Local,
    Reference,
    RefusedError,
    Source,
    Web,
    http,
    huggingface,
    names,
)

_COMMIT = re.compile("[0-9a-f]{40}")


def require(entry: Entry) -> None:
    """Raises ValueError, which says what of an entry does not follow from its source, or lies on one path twice."""
    if len({file.path for file in entry.listed}) < len(entry.listed):
        raise ValueError(f"the model {entry.name!r} has two files on one path")
    try:
        _require(entry, sources.read(entry.source))
    except RefusedError as refused:
        raise ValueError(f"the source of `{entry.name}` {refused}") from None


def _require(entry: Entry, source: Source) -> None:
    said = entry.origin
    if structs.replace(said, revision=None, license=None, base_models=()) != origin(source):
        named = f"{said.kind} {said.repository or ''}".rstrip()
        raise ValueError(f"`{entry.name}` comes from {entry.source}, and the origin says {named}")
    wanted = str(getattr(source, "revision", None) or getattr(source, "reference", ""))
    pattern = {"huggingface": _COMMIT, "oci": DIGEST}.get(said.kind)
    if pattern is None and (said.revision or said.license or said.base_models):
        raise ValueError(f"the origin of `{entry.name}` can say nothing of a revision, a licence or a base model")
    if pattern and (
        not pattern.fullmatch(said.revision or "") or (pattern.fullmatch(wanted) and wanted != said.revision)
    ):
        raise ValueError(f"`{entry.name}` comes from {entry.source}, and the origin says the revision {said.revision}")
    for path, pin in entry.files:
        if not _lands(source, entry.name, path):
            raise ValueError(f"`{entry.name}` comes from {entry.source}, which does not land on {path}")
        if pin.url != (right := _url(source, entry.name, said.revision or "", path, pin)):
            raise ValueError(f"`{entry.name}` comes from {entry.source}: its url is {right or 'none'}, not {pin.url}")


def origin(source: Source) -> Origin:
    """The origin of a source, as far as the source says it."""
    match source:
        case Local():
            return Origin("local")
        case Web():
            return Origin("http")
        case HubFile() | HubRepository():
            return Origin("huggingface", source.repo)
        case Reference():
            return Origin("oci", f"{source.registry}/{source.repository}")
        case _:
            assert_never(source)


def _lands(source: Source, name: str, path: str) -> bool:
    """Whether a file of the source can be at a path in the image."""
    place = sources.destination(source, name)
    match source:
        case Reference():
            folder, file = posixpath.split(path)
            # beside Ollama's model, its projector and adapters
            return not source.is_ollama or (folder == sources.MODELS and source.file in file)
        case HubRepository():
            return path.startswith(f"{place}/")
        case Local() if path.startswith(f"{place}/"):
            return True
        case _:
            return path == place or _is_shard(path, place)


def _is_shard(path: str, first: str) -> bool:
    return posixpath.dirname(path) == posixpath.dirname(first) and posixpath.basename(path) in names.shards(
        posixpath.basename(first)
    )


def _url(source: Source, name: str, revision: str, path: str, pin: Pin) -> str | None:
    """Where the file at a path in the image comes from; None for a local one.

    An archive of a registry has another digest than the file in it: its own has to stand there.
    """
    place = sources.destination(source, name)
    match source:
        case Local():
            return None
        case Web():
            return source.url if path == place else http.beside(source, posixpath.basename(path))
        case HubFile():
            own = path == place
            file = source.path if own else posixpath.join(posixpath.dirname(source.path), posixpath.basename(path))
            return huggingface.url(source.repo, revision, file)
        case HubRepository():
            return huggingface.url(source.repo, revision, path.removeprefix(f"{place}/"))
        case Reference():
            digest = f"sha256:{pin.sha256}"
            if pin.member:
                said = (pin.url or "").rpartition("/")[2]
                digest = said if DIGEST.fullmatch(said) else ""
            # A registry on this machine may speak plain HTTP, no other does
            host = urlsplit(f"//{source.registry}").hostname or ""
            scheme = "http" if is_loopback(host) and (pin.url or "").startswith("http:") else "https"
            return f"{scheme}://{reference.host(source.registry)}/v2/{source.repository}/blobs/{digest}"
        case _:
            assert_never(source)
