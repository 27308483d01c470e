"""Downloads into the Nix store, under the very paths that `nix build` looks for.

Verified while they stream; nothing is in the store that is not what its sha256 says. What is half-done stays below
~/.cache/aikit-nix/downloads and is taken up again.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aikit_nix import files, store
from aikit_nix.aikitfile import Aikitfile, Layer, Model, Pin
from aikit_nix.sources import Artifact, HubFile, HubRepository, huggingface, oci

if TYPE_CHECKING:
    from aikit_nix.download import Download, Fetched
    from aikit_nix.hashing import Digests, Frame
    from aikit_nix.http import Client, HttpError


@dataclass(frozen=True)
class Remote:
    """A model's file at its origin: where it lands in the image, and what is known of it before its bytes are seen.

    `private` is whether Nix cannot fetch it by itself. `is_archive` is whether the URL gives a tar that holds the files:
    `sha256` and `size` are then the tar's.
    """

    model: Model
    path: str
    url: str
    size: int | None
    sha256: str | None
    private: bool = False
    is_archive: bool = False


Pins = tuple[tuple[str, Pin], ...]  # path in the image, pin


def learn(remotes: Sequence[Remote], client: Client) -> dict[str, Pins]:
    """The pins of files, by their Remote's path. What their origin does not say is downloaded, into the store.

    Raises AikitError for all that cannot be had.
    """
    known = {
        remote.path: ((remote.path, Pin(remote.sha256, remote.size, url=remote.url, private=remote.private)),)
        for remote in remotes
        if remote.sha256 and remote.size is not None and not remote.is_archive
    }
    return known | bring([remote for remote in remotes if remote.path not in known], client)


def add_local(local: Iterable[tuple[Model, Path]]) -> list[Path]:
    """Put local models into the store; gives those that were not in it. Raises AikitError."""
    return [
        file for model, file in local if model.pin and store.add(file, posixpath.basename(model.path), model.pin.sha256)
    ]


def bring_models(aikitfile: Aikitfile, jobs: int = 4) -> dict[str, Pin]:
    """Bring what a pinned aikitfile needs from elsewhere into the store; gives what was seen, by path in the image."""
    from aikit_nix.http import Client

    remotes = wanted(aikitfile)
    with Client() as client:
        return dict(pin for pins in bring(remotes, client, jobs=jobs).values() for pin in pins)


def wanted(aikitfile: Aikitfile) -> list[Remote]:
    """What a locked aikitfile needs from elsewhere and the store lacks; each archive once."""
    far = [(model, model.pin) for model in aikitfile.models if model.pin and model.pin.url and not model.is_local]
    there = store.present((posixpath.basename(model.path), pin.sha256) for model, pin in far)
    found: dict[str, Remote] = {}
    for (model, pin), is_there in zip(far, there, strict=True):
        assert pin.url is not None  # noqa: S101 (just asked)
        if is_there:
            continue
        if pin.member:
            digest = pin.url.rpartition("sha256:")[2]
            found.setdefault(pin.url, Remote(model, model.path, pin.url, None, digest, pin.private, is_archive=True))
        else:
            found[model.path] = Remote(model, model.path, pin.url, pin.size, pin.sha256, pin.private)
    return list(found.values())


def bring(remotes: Sequence[Remote], client: Client, *, jobs: int = 4) -> dict[str, Pins]:
    """Download files into the store; gives their pins with all that their bytes say, by their Remote's path.

    Raises AikitError for all failures together; what arrived is in the store.
    """
    from aikit_nix import archive, download, partial

    if not remotes:
        return {}
    files.make_folder(folder())
    pins: dict[str, Pins] = {}
    downloads = {str(item.to): (item, remote) for remote in remotes for item in [_download(remote, client)]}

    def then(fetched: Fetched) -> None:
        _, remote = downloads[str(fetched.download.to)]
        if remote.is_archive:
            pins[remote.path] = archive.add_members(fetched.file, remote)
        else:
            if fetched.sunk is None:
                store.add(fetched.file, posixpath.basename(remote.path), fetched.digests.sha256)
            pins[remote.path] = ((remote.path, pin_of(remote, fetched.digests)),)
        partial.discard(fetched.file)

    download.fetch_all([item for item, _ in downloads.values()], client, jobs=jobs, then=then)
    return pins


def folder() -> Path:
    """Where downloads are on their way."""
    return files.cache_folder() / "downloads"


def pin_of(remote: Remote, digests: Digests) -> Pin:
    """What is known of a file whose bytes were seen."""
    return Pin(digests.sha256, digests.size, digests.blake3, layer_of(remote.path, digests), remote.url, remote.private)


def layer_of(path: str, digests: Digests) -> Layer | None:
    """The layer that a file becomes, where its digest was computed."""
    from aikit_nix.image import model_layer

    return Layer(f"sha256:{digests.layer}", model_layer.layer_size(path, digests.size)) if digests.layer else None


def frame_of(path: str) -> Callable[[int], Frame]:
    """For a size: what stands around the content in the layer that the file becomes."""
    from aikit_nix.hashing import Frame
    from aikit_nix.image import model_layer

    return lambda size: Frame(model_layer.header(path, size), model_layer.trailer(size))


def _download(remote: Remote, client: Client) -> Download:
    from aikit_nix.download import Download
    from aikit_nix.store_stream import StoreStream

    url, headers = _request(remote, client)
    pin = remote.model.pin
    key = hashlib.sha256(f"{remote.url} {remote.sha256} {remote.path}".encode()).hexdigest()[:32]
    return Download(
        url,
        folder() / key,
        posixpath.basename(remote.path),
        headers=headers,
        size=remote.size,
        sha256=remote.sha256,
        sink=None if remote.is_archive else lambda: StoreStream(store.name(posixpath.basename(remote.path))),
        layer_of=None if remote.is_archive or (pin and pin.layer) else frame_of(remote.path),
        at=remote.model.source.at,
        hint=lambda problem: _hint(remote, problem),
    )


def _request(remote: Remote, client: Client) -> tuple[str, Mapping[str, str]]:
    """Where the file is asked for on this machine, and with which credentials."""
    match remote.model.source.value:
        case HubFile() | HubRepository():
            return huggingface.request(remote.url)
        case Artifact() as source:
            repository = oci.repository(source, client)
            repository.login()
            return remote.url, repository.headers()
        case _:
            return remote.url, {}


def _hint(remote: Remote, problem: HttpError) -> str:
    """What to do about a refusal."""
    if isinstance(remote.model.source.value, HubFile | HubRepository) and problem.status in (401, 403):
        return ": accept the model's terms on its page, and set HF_TOKEN"
    return {
        401: ": the server asks for a login",
        403: ": the server does not let you have it",
        404: ": it is not there (any more): correct the source, or `aikit-nix lock --update` it",
    }.get(problem.status or 0, "")
