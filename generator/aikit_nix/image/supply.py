"""Where a push takes models that the Nix store lacks: the file beside the aikitfile, or the model's origin.

From its origin (Hugging Face, a web server, another registry) a model goes straight into the registry, and is never on this
disk. What the lock did not know of it is known when its last byte was sent; then the lock and the flake are completed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from aikit_nix.aikitfile.types import Model, Pin
from aikit_nix.base.errors import AikitError, error
from aikit_nix.flakes import folder, generate
from aikit_nix.http.client import Client
from aikit_nix.image import push
from aikit_nix.image.push import Sending
from aikit_nix.models import fetch, locking, seen
from aikit_nix.models import project as projects
from aikit_nix.models.origin import OriginReader
from aikit_nix.models.project import Project
from aikit_nix.models.remote import Remote, layer_of
from aikit_nix.registry.reference import Reference
from aikit_nix.sources import judge


@contextmanager
def opened(flake: str) -> Iterator[Supply]:
    """The models of a flake: of a folder that `gen` wrote and whose aikitfile is there, else of none. Raises AikitError."""
    project = None
    there = [Path(os.path.normpath(Path(flake, path))) for path, _ in folder.made_from(Path(flake))]
    if there and there[0].is_file():
        project = projects.read(there[0], lock_path=there[1] if len(there) > 1 else None)
    with Client() as client:
        yield Supply(Path(flake), project, client)


class Supply:
    """The models of a flake's aikitfile, as its lock has them: `push.Elsewhere`."""

    def __init__(self, flake: Path, project: Project | None, client: Client) -> None:
        self._flake = flake
        self._project = project
        self._client = client
        self._origins = fetch.Origins(client)

    def find(self, path: str, sha256: str) -> Path | OriginReader | None:
        """See `push.Elsewhere`."""
        for model in self._project.aikitfile.models if self._project else ():
            if self._project and model.is_local:
                with suppress(AikitError):  # it is not there
                    for each, file in projects.local_files(model, self._project.folder):
                        if each == path and file.is_file():
                            return file
            elif model.path == path and model.pin and model.pin.sha256 == sha256:
                return self._origin(model, model.pin)
        return None

    def abort(self) -> None:
        """See `push.Elsewhere`."""
        self._client.abort()

    def learn(self, target: Reference, how: Sending) -> None:
        """Send the models whose layer the lock does not know into a repository; then complete the lock and the flake.

        Raises AikitError.
        """
        project = self._project
        lock = project.lock if project else None
        if not project or not lock:
            return
        unknown = {
            model.path: (model, model.pin)
            for model in project.aikitfile.models
            if model.is_locked and model.pin and not model.pin.layer
        }
        if not unknown:
            return
        for file in (project.path, Path(lock.file)):
            if not generate.made_from(self._flake, file):
                raise error(f"the flake in {self._flake} is behind {file}: run `aikit-nix gen`", code="stale")
        found = seen.derived((path, pin) for path, (_, pin) in unknown.items())
        origins = {
            path: origin
            for path, (model, pin) in unknown.items()
            if path not in found and (origin := self._origin(model, pin))
        }
        with how.into(target) as (repository, pool):
            blobs = [push.model_blob(path, origin) for path, origin in origins.items()]
            digests = push.send(repository, blobs, pool, how.chunk)
        for (path, origin), digest in zip(origins.items(), digests, strict=True):
            model, pin = unknown[path]
            known = replace(origin.digests(), layer=digest.removeprefix("sha256:"))
            gguf = pin.gguf or self._origins.facts(self._remote(model, pin))
            found[path] = replace(pin, blake3=known.blake3, layer=layer_of(path, known), gguf=gguf)
            seen.remember(path, replace(found[path], gguf=None))
        if locking.complete(lock, found):
            generate.renew(project, self._flake)

    def _origin(self, model: Model, pin: Pin) -> OriginReader | None:
        """None for what only `fetch` can bring: a file in an archive, one of unknown size."""
        remote = self._remote(model, pin)
        return self._origins.reader(remote) if remote.url and remote.size is not None and not pin.member else None

    def _remote(self, model: Model, pin: Pin) -> Remote:
        return Remote(
            model,
            model.path,
            pin.url or "",
            pin.size,
            pin.sha256,
            pin.private,
            is_gguf=judge.expects_gguf(model.path),
            as_is=pin.as_is,
        )
