"""Downloads into the Nix store, under the very paths that `nix build` looks for.

Verified while they stream; nothing is in the store that is not what its sha256 says. What is half-done stays below
~/.cache/aikit-nix/downloads and is taken up again. What is whole goes from there into the store piece by piece, so that the
disk never has it twice.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from aikit_nix.aikitfile.types import Aikitfile, Model, Pin
from aikit_nix.base import console, files, typed_json
from aikit_nix.base.errors import AikitError, collect
from aikit_nix.models.entry import File
from aikit_nix.models.remote import Pins, Remote, frame_of, judged, key_of, pin_of
from aikit_nix.nix import command as nix
from aikit_nix.nix import store
from aikit_nix.sources import HubFile, HubRepository, Reference, head, huggingface, judge, oci

if TYPE_CHECKING:
    from aikit_nix.http.client import Client, HttpError
    from aikit_nix.models.download import Fetched
    from aikit_nix.models.origin import Download, OriginReader
    from aikit_nix.registry.client import Repository
    from aikit_nix.sources.gguf import Facts
    from aikit_nix.sources.head import Head

_AT_ONCE = 8  # heads that are read


def learn(remotes: Sequence[Remote], client: Client) -> dict[Remote, Pins]:
    """The pins of files. What their origin does not say is downloaded, into the store; of GGUFs the head is read.

    Raises AikitError for all that cannot be had.
    """
    from concurrent.futures import ThreadPoolExecutor

    origins = Origins(client)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(origins.known, remote) for remote in remotes]
        found = collect(future.result for future in futures)
    known = {remote: pins for remote, pins in zip(remotes, found, strict=True) if pins}
    return known | bring([remote for remote in remotes if remote not in known], client)


def forget(pins: Iterable[tuple[str, Pin]]) -> None:
    """What was learned of these files is in a lock now."""
    for path, pin in pins:
        if pin.url:
            _note(key_of(pin.url, None, path)).unlink(missing_ok=True)
            _tidy(key_of(pin.url, None, path))


def add_local(local: Iterable[tuple[Model, Path]]) -> list[Path]:
    """Put local models into the store; gives those that were not in it. Raises AikitError."""
    return [
        file for model, file in local if model.pin and store.add(file, posixpath.basename(model.path), model.pin.sha256)
    ]


def bring_models(aikitfile: Aikitfile, jobs: int = 4) -> dict[str, Pin]:
    """Bring what a pinned aikitfile needs from elsewhere into the store; gives what was seen, by path in the image."""
    from aikit_nix.http.client import Client

    remotes = wanted(aikitfile)
    with Client() as client:
        return dict(pin for pins in bring(remotes, client, jobs=jobs).values() for pin in pins)


def wanted(aikitfile: Aikitfile) -> list[Remote]:
    """What a pinned aikitfile needs from elsewhere and the store lacks; each archive once."""
    far = [(model, model.pin) for model in aikitfile.models if model.pin and model.pin.url and not model.is_local]
    there = store.present((posixpath.basename(model.path), pin.sha256) for model, pin in far)
    found: dict[str, Remote] = {}
    for (model, pin), is_there in zip(far, there, strict=True):
        assert pin.url is not None  # noqa: S101 (just asked)
        if is_there:
            _tidy(key_of(pin.url, pin.sha256, model.path))
        elif pin.member:
            digest = pin.url.rpartition("sha256:")[2]
            found.setdefault(pin.url, Remote(model, model.path, pin.url, None, digest, pin.private, is_archive=True))
        else:
            found[model.path] = Remote(
                model, model.path, pin.url, pin.size, pin.sha256, pin.private, is_gguf=bool(pin.gguf), as_is=pin.as_is
            )
    return list(found.values())


def bring(remotes: Sequence[Remote], client: Client, *, jobs: int = 4) -> dict[Remote, Pins]:
    """Download files into the store; gives their pins with all that their bytes say.

    Raises AikitError for all failures together; what arrived is in the store.
    """
    from aikit_nix.models import archive, download, seen

    if not remotes:
        return {}
    nix.has_store()
    files.make_folder(folder())
    origins = Origins(client)
    pins: dict[Remote, Pins] = {}
    downloads = {item.to: (item, remote) for remote in remotes for item in [origins.download(remote)]}

    def then(fetched: Fetched) -> None:
        _, remote = downloads[fetched.download.to]
        if remote.is_archive:
            pins[remote] = archive.add_members(fetched.file, remote)
        else:
            facts = judged(
                remote.model,
                remote.name,
                lambda: judge.of_file(fetched.file, remote.name, is_gguf=remote.is_gguf),
                as_is=remote.as_is,
            )
            store.add(fetched.file, remote.name, fetched.digests.sha256, consume=True)
            pins[remote] = ((remote.path, replace(pin_of(remote, fetched.digests), gguf=facts)),)
        for path, pin in pins[remote]:
            seen.remember(path, pin)
        if remote.sha256 is None or remote.is_archive:
            _keep(remote, pins[remote], fetched.validator)
        fetched.file.unlink()

    download.fetch_all([item for item, _ in downloads.values()], client, jobs=jobs, then=then)
    return pins


def _tidy(key: str) -> None:
    """Remove what a run left of a file that is in the store: it was killed between the two."""
    from aikit_nix.models.partial import Partial

    def busy() -> None:
        raise OSError  # another process has it, and will remove it

    place = folder() / key
    if place.exists():
        with suppress(OSError, AikitError), Partial(place, busy) as left:
            left.discard()


class _Note(Struct):
    """What was learned of a file, and what its server called its version."""

    validator: str
    files: tuple[File, ...]


def _note(key: str) -> Path:
    return folder() / f"{key}.pins"


def _keep(remote: Remote, pins: Pins, validator: str) -> None:
    """Write down what was learned of a file: if other files fail, or the power does, it is not downloaded again."""
    note = _Note(validator, tuple(File.of(path, pin) for path, pin in pins))
    with suppress(OSError):  # nobody needs it
        files.write_whole(_note(remote.key), typed_json.pack(note))


def _kept(remote: Remote) -> tuple[str, Pins] | None:
    """What was learned of a file, and its version, if the store still has it."""
    try:
        note = typed_json.decode(_note(remote.key).read_bytes(), _Note)
    except (OSError, ValueError):
        return None
    pins = tuple(file.pinned() for file in note.files)
    there = store.present((posixpath.basename(path), pin.sha256) for path, pin in pins)
    return (note.validator, pins) if all(there) else None


class Origins:
    """How files are asked for on this machine, and with which credentials."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._lock = threading.Lock()

    def _request(self, remote: Remote) -> tuple[str, Mapping[str, str]]:
        """The address and the headers, but for a registry's login."""
        is_hub = isinstance(remote.model.source.value, HubFile | HubRepository)
        return huggingface.request(remote.url) if is_hub else (remote.url, {})

    def _repository(self, remote: Remote) -> Repository | None:
        """Where a file of a registry is. A lock may say anything, and the login is for the repository's own URLs alone."""
        source = remote.model.source.value
        if not isinstance(source, Reference):
            return None
        with self._lock:
            key = source.registry, source.repository
            if key not in self._repositories:
                self._repositories[key] = oci.repository(source, self._client)
        there = self._repositories[key]
        return there if remote.url.startswith(there.url("blobs/")) else None

    def download(self, remote: Remote) -> Download:
        """The download of a file."""
        from aikit_nix.models.origin import Download

        url, headers = self._request(remote)
        return Download(
            url,
            folder() / remote.key,
            remote.name,
            headers=headers,
            login=self._repository(remote),
            size=remote.size,
            sha256=remote.sha256,
            layer_of=None if remote.is_archive else frame_of(remote.path),
            at=remote.model.source.at,
            hint=lambda problem: _hint(remote, problem),
        )

    def reader(self, remote: Remote) -> OriginReader:
        """The bytes of a file of known size and sha256, to be taken elsewhere."""
        from aikit_nix.models.origin import OriginReader

        assert remote.size is not None  # noqa: S101 (the caller knows it)
        return OriginReader(self.download(remote), remote.size, self._client)

    def facts(self, remote: Remote) -> Facts | None:
        """What the header of a GGUF says; None where it cannot be had. Raises AikitError where it is no GGUF."""
        found = self._look(remote) if remote.is_gguf else None
        return judged(remote.model, remote.name, found.require, as_is=remote.as_is) if found else None

    def known(self, remote: Remote) -> Pins | None:
        """The pins of a file without downloading it; None where that is not enough."""
        if remote.sha256 is None or remote.is_archive:
            kept = _kept(remote)
            return kept[1] if kept and (remote.is_archive or self._is_same(remote, kept[0])) else None
        found = self._look(remote) if remote.size is None or remote.is_gguf else None
        size = remote.size or (found.size if found else None)
        if size is None:
            return None
        facts = judged(remote.model, remote.name, found.require, as_is=remote.as_is) if found else None
        pin = Pin(remote.sha256, size, url=remote.url, private=remote.private, gguf=facts, as_is=remote.as_is)
        return ((remote.path, pin),)

    def _look(self, remote: Remote) -> Head | None:
        try:
            return self._head(remote)
        except AikitError as problem:
            console.trace(f"{remote.name}: its head cannot be read: {problem}")
            return None

    def _head(self, remote: Remote) -> Head:
        url, headers = self._request(remote)
        most = head.MOST if remote.is_gguf else judge.PEEK

        def look(login: Mapping[str, str]) -> Head:
            return head.read(url, {**headers, **login}, self._client, remote.name, is_gguf=remote.is_gguf, most=most)

        there = self._repository(remote)
        return there.asked(look) if there else look({})

    def _is_same(self, remote: Remote, validator: str) -> bool:
        """Whether a server still has the version of a file that was seen. A file of Hugging Face is at a commit."""
        if isinstance(remote.model.source.value, HubFile | HubRepository):
            return True
        from aikit_nix.models import origin

        try:
            answer = self._client.head(remote.url)
        except AikitError:
            return False
        return bool(validator) and origin.validator(answer.headers) == validator


def folder() -> Path:
    """Where downloads are on their way."""
    return files.cache_folder() / "downloads"


def _hint(remote: Remote, problem: HttpError) -> str:
    """What to do about a refusal."""
    source = remote.model.source.value
    if isinstance(source, HubFile | HubRepository) and problem.status in (401, 403):
        page = f"{huggingface.ADDRESS}/{source.repo}"
        return f": accept the model's terms on {page}, and set HF_TOKEN to a token that may read it"
    if isinstance(source, Reference) and problem.status in (401, 403):
        return f": log in with `docker login {source.registry}` or `podman login {source.registry}`"
    return {
        401: ": the server asks for a login",
        403: ": the server does not let you have it",
        404: ": it is not there (any more): correct the source, or `aikit-nix lock --update` it",
    }.get(problem.status or 0, "")
