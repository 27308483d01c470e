"""Manifests and their blobs into a repository: what is not there is taken from another one, or sent from where it is.

A model's layer is never on this disk: it is made of the model's bytes on their way. The manifest goes last, so that a tag
never names an image that is not whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base import console, files, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.http.client import Client, Timeouts
from aikit_nix.image import layout
from aikit_nix.image.layout import Image, Layer
from aikit_nix.models import layer as model_layer
from aikit_nix.models import seen
from aikit_nix.registry import upload
from aikit_nix.registry.blob import Blob, Part
from aikit_nix.registry.client import Repository
from aikit_nix.registry.reference import Reference, digest_of
from aikit_nix.registry.upload import CHUNK, Upload

_REPOSITORIES = 32  # that are remembered of a registry
_SOURCES = 4  # repositories that are asked for blobs to mount
_MEMORY = 4 << 20  # bytes of what is remembered


class Elsewhere(Protocol):
    """Where models are that the Nix store lacks."""

    def find(self, path: str, sha256: str) -> Path | Part | None:
        """A model's bytes, by its path in the image and its sha256 in hex."""

    def abort(self) -> None:
        """Break off what other threads are reading: for Ctrl-C."""


@dataclass(frozen=True)
class Sending:
    """How blobs are sent: models that the Nix store lacks come from `elsewhere`, if they do.

    `mount_from` are other repositories of the registry that may have some of them; those that were pushed to from this
    machine are known. `insecure` is as for Repository, `chunk` in bytes, `jobs` are uploads at a time.
    """

    elsewhere: Elsewhere | None = None
    mount_from: Sequence[str] = ()
    insecure: bool | None = None
    chunk: int = CHUNK
    jobs: int = 4
    timeouts: Timeouts | None = None

    @contextmanager
    def into(self, target: Reference, sources: Sequence[str] = ()) -> Iterator[tuple[Repository, ThreadPoolExecutor]]:
        """The repository, which may mount from others, and threads that give up at once on a failure or Ctrl-C."""
        with Client(self.timeouts) as client:
            repository = Repository(
                client,
                target.registry,
                target.repository,
                actions="pull,push",
                insecure=self.insecure,
                sources=sources,
            )
            pool = ThreadPoolExecutor(max(1, self.jobs))
            try:
                repository.login()
                yield repository, pool
            except BaseException:
                client.abort()
                if self.elsewhere:
                    self.elsewhere.abort()
                raise
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Outcome:
    """What a push did. `sent` are bytes, the others numbers of blobs."""

    digest: str
    there: int
    mounted: int
    uploaded: int
    sent: int

    def __str__(self) -> str:
        parts = [
            f"{count} {what}"
            for count, what in ((self.there, "there already"), (self.mounted, "mounted"), (self.uploaded, "sent"))
            if count
        ]
        size = f" ({console.size(self.sent)})" if self.uploaded else ""
        return f"{self.there + self.mounted + self.uploaded} blobs: {', '.join(parts)}{size}"


@dataclass(frozen=True)
class Content:
    """What is pushed: a manifest or an index, and the blobs that it names with where they are."""

    media_type: str
    manifest: bytes
    blobs: tuple[Blob, ...] = ()

    @property
    def digest(self) -> str:
        """The manifest's."""
        return digest_of(self.manifest)


def of_image(image: Image, elsewhere: Elsewhere | None = None) -> Content:
    """An image of a layout; its blobs are in that or in the Nix store, a model perhaps `elsewhere`.

    Raises AikitError for a file that cannot be the one, and for what was claimed of models and is not so.
    """
    # A registry that has a layer already shows nothing of whose it is
    hashes = image.models()
    layers = [(layer.model, LayerPin(layer.digest, layer.size)) for layer in image.layers if layer.model]
    seen.check([(path, Pin(hashes[path], layer=layer)) for path, layer in layers if path in hashes], image.name)
    file = image.blob(image.config_digest)
    config = Blob(image.config_digest, image.config_size, "the configuration", (file,) if file else None)
    media_type = json.loads(image.manifest).get("mediaType", layout.MANIFEST)
    return Content(
        str(media_type), image.manifest, (*(_layer(image, layer, elsewhere) for layer in image.layers), config)
    )


def _layer(image: Image, layer: Layer, elsewhere: Elsewhere | None) -> Blob:
    name = layer.model or f"the layer {layer.digest[:19]}…"
    if in_layout := image.blob(layer.digest):
        return Blob(layer.digest, layer.size, name, (in_layout,))
    sha256 = image.models().get(layer.model) if layer.model else None
    if not layer.model or not sha256:
        return Blob(layer.digest, layer.size, name, None)
    file = image.model_file(layer.model)
    content: Path | Part | None = file if file and file.is_file() else None
    if content is None and elsewhere:
        content = elsewhere.find(layer.model, sha256)
    if content is None:
        return Blob(layer.digest, layer.size, name, None, file)
    blob = model_blob(layer.model, content, layer.digest)
    if blob.size != layer.size:
        message = f"{blob.where} gives a layer of {blob.size:,} bytes, and the image has {layer.size:,}"
        raise error(message, code="digest-mismatch")
    return blob


def model_blob(path: str, content: Path | Part, digest: str = "") -> Blob:
    """A model's layer, of its bytes; the digest where it is known. Raises AikitError."""
    file = content if isinstance(content, Path) else None
    try:
        size = content.stat().st_size if isinstance(content, Path) else content.size
        parts = (model_layer.header(path, size), content, model_layer.trailer(size))
        return Blob(digest, model_layer.layer_size(path, size), path, parts, file)
    except (OSError, ValueError) as bad:
        raise error(f"{path} ({file}) cannot be read: {bad}", code="unreadable") from None


def push(contents: Sequence[Content], target: Reference, how: Sending) -> Outcome:
    """Bring contents to where `target` says: the last under its tag, those before it, which it names, by their digests.

    Raises AikitError; nothing is published then.
    """
    digest = contents[-1].digest
    if target.reference.startswith("sha256:") and target.reference != digest:
        raise error(f"{target.name}: the image has the digest {digest}", code="digest-mismatch")
    # Two models may be the same file
    wanted = list({blob.digest: blob for each in contents for blob in each.blobs}.values())
    sources = _sources(target, {blob.digest for blob in wanted}, how.mount_from)
    with how.into(target, list(sources)) as (repository, pool):
        there = pool.map(lambda blob: repository.has(blob.digest, blob.size), wanted)
        lacking = [blob for blob, is_there in zip(wanted, there, strict=True) if not is_there]
        begun = dict(_mounted(repository, lacking, sources, pool))
        missing = [blob for blob in lacking if blob.digest not in begun or begun[blob.digest]]
        _require(missing, begun, repository)
        send(repository, missing, pool, how.chunk, begun)
        for each in contents[:-1]:
            repository.put_manifest(each.digest, each.media_type, each.manifest)
        repository.put_manifest(target.reference, contents[-1].media_type, contents[-1].manifest)
    _remember(target, [blob.digest for blob in wanted])
    return Outcome(
        digest,
        len(wanted) - len(lacking),
        len(lacking) - len(missing),
        len(missing),
        sum(blob.size for blob in missing),
    )


def _mounted(
    repository: Repository, lacking: Iterable[Blob], sources: Mapping[str, set[str] | None], pool: ThreadPoolExecutor
) -> Iterator[tuple[str, Upload | None]]:
    """Of the blobs that another repository may have: None where it had it, else the upload that the registry began."""

    def mount(blob: Blob, candidates: list[str]) -> tuple[str, Upload | None]:
        begun = None
        for source in candidates:
            if begun:
                begun.cancel()
            if not (begun := upload.mount(repository, blob.digest, source)):
                break
        return blob.digest, begun

    jobs = []
    for blob in lacking:
        if candidates := [source for source, has in sources.items() if has is None or blob.digest in has]:
            jobs.append(pool.submit(mount, blob, candidates))
    for job in jobs:
        yield job.result()


def _require(missing: Iterable[Blob], begun: Mapping[str, Upload | None], repository: Repository) -> None:
    absent = [blob for blob in missing if blob.parts is None]
    if not absent:
        return
    for started in begun.values():
        if started:
            started.cancel()
    raise AikitError(
        *(
            Diagnostic(
                Severity.ERROR,
                "missing-blob",
                f"{blob.where} is neither in {repository} nor on this machine: "
                + ("`aikit-nix fetch` brings it" if blob.file else "push a complete OCI layout"),
            )
            for blob in absent
        )
    )


def send(
    repository: Repository,
    missing: Sequence[Blob],
    pool: ThreadPoolExecutor,
    chunk: int,
    begun: Mapping[str, Upload | None] = MappingProxyType({}),
) -> list[str]:
    """Send blobs, several at a time; their digests. `begun` are uploads by digest. Raises AikitError, after the first failure."""
    large = [blob for blob in missing if blob.size > CHUNK]
    small = [blob for blob in missing if blob.size <= CHUNK]
    with console.progress(len(large) + bool(small), sum(blob.size for blob in missing)) as progress:

        def one(blob: Blob, bar: console.Bar) -> str:
            return upload.send(repository, blob, bar.advance, begun=begun.get(blob.digest), chunk=chunk)

        def one_large(blob: Blob) -> str:
            with progress.file(blob.what, blob.size) as bar:
                return one(blob, bar)

        def finish(jobs: Mapping[int, Future[str]]) -> None:
            for job in as_completed(jobs.values()):
                job.result()

        jobs: dict[int, Future[str]] = {}
        if small:
            name = small[0].what if len(small) == 1 else f"{len(small)} small blobs"
            with progress.file(name, sum(blob.size for blob in small)) as bar:
                jobs = {id(blob): pool.submit(one, blob, bar) for blob in small}
                finish(jobs)
        jobs |= {id(blob): pool.submit(one_large, blob) for blob in large}
        finish(jobs)
    return [jobs[id(blob)].result() for blob in missing]


# --- What was pushed from here: a registry can mount a blob only from a repository that is named to it.


def _sources(target: Reference, wanted: set[str], named: Sequence[str]) -> dict[str, set[str] | None]:
    """Other repositories of the registry, and which of the blobs they have where that is known."""
    found: dict[str, set[str] | None] = {}
    for text in named:
        found[text.removeprefix("docker://").removeprefix(f"{target.registry}/")] = None
    known = _memory().get(target.registry, {})
    for repository in reversed(known):
        if len(found) < _SOURCES and repository not in found and (has := wanted & set(known[repository])):
            found[repository] = has
    found.pop(target.repository, None)
    return found


def _memory() -> dict[str, dict[str, list[str]]]:
    """Registry -> repository, the latest last -> digests."""
    with suppress(AikitError, ValueError):
        return typed_json.decode(files.read_bounded(_memory_file(), _MEMORY), dict[str, dict[str, list[str]]])
    return {}


def _remember(target: Reference, digests: list[str]) -> None:
    memory = _memory()
    known = memory.setdefault(target.registry, {})
    known.pop(target.repository, None)
    known[target.repository] = digests
    for oldest in list(known)[:-_REPOSITORIES]:
        del known[oldest]
    with suppress(AikitError):  # it was pushed, with or without a memory of it
        files.write_atomic(_memory_file(), typed_json.pack(memory))


def _memory_file() -> Path:
    return files.cache_folder() / "pushed.json"
