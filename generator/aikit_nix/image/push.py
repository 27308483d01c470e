"""An image into a repository: what is not there is taken from another repository, or sent from where it lies here.

A model's layer is never on this disk: it is made of the model's file in the Nix store on its way. The manifest goes last,
so that a tag never names an image that is not whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.base import console, files
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.http.client import Client, Patience
from aikit_nix.image import layout
from aikit_nix.image.layout import Image
from aikit_nix.registry import upload
from aikit_nix.registry.blob import Blob
from aikit_nix.registry.client import Repository
from aikit_nix.registry.reference import Reference
from aikit_nix.registry.upload import CHUNK, Upload

_REPOSITORIES = 32  # that are remembered of a registry
_SOURCES = 4  # repositories that are asked for blobs to mount
_MEMORY = 4 << 20  # bytes of what is remembered


@dataclass(frozen=True)
class Outcome:
    """What a push did. `sent` are bytes, the others numbers of blobs."""

    reference: str
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


def blobs(image: Image, folder: Path) -> list[Blob]:
    """The image's blobs, each once, and where they are on this machine, if they are: in the layout or in the Nix store.

    Raises AikitError for a file that cannot be the one.
    """
    found = {layer.digest: _layer(image, index, folder) for index, layer in enumerate(image.layers)}
    config = layout.blob_path(folder, image.config_digest)
    found[image.config_digest] = Blob(image.config_digest, image.config_size, "the configuration", (config,))
    return list(found.values())


def _layer(image: Image, index: int, folder: Path) -> Blob:
    layer = image.layers[index]
    in_layout = layout.blob_path(folder, layer.digest)
    name = layer.model or f"the layer {layer.digest[:19]}…"
    if in_layout.is_file():
        return Blob(layer.digest, layer.size, name, (in_layout,))
    file = image.model_file(layer.model) if layer.model else None
    if not layer.model or file is None or not file.is_file():
        return Blob(layer.digest, layer.size, name, None, file)
    try:
        parts = layout.model_parts(layer.model, file)
        size = len(parts[0]) + file.stat().st_size + len(parts[2])
    except (OSError, ValueError) as bad:
        raise error(f"{name} ({file}) cannot be read: {bad}", code="unreadable") from None
    if size != layer.size:
        message = f"{name} ({file}) gives a layer of {size:,} bytes, and the image has {layer.size:,}"
        raise error(message, code="digest-mismatch")
    return Blob(layer.digest, layer.size, name, parts, file)


def push(
    image: Image,
    folder: Path,
    target: Reference,
    *,
    mount_from: Sequence[str] = (),
    insecure: bool | None = None,
    chunk: int = CHUNK,
    jobs: int = 4,
    patience: Patience | None = None,
) -> Outcome:
    """Bring an image, whose layout is in `folder`, to where `target` says. Raises AikitError; nothing is published then.

    `mount_from` are other repositories of the registry that may have some of it; those that were pushed to from this
    machine are known. `chunk` is in bytes, `jobs` are uploads at a time.
    """
    if image.digest is None:
        raise error("a docker-archive has no manifest to push: push its OCI layout", code="image")
    if target.reference.startswith("sha256:") and target.reference != image.digest:
        raise error(f"{target.name}: the image has the digest {image.digest}", code="digest-mismatch")
    wanted = blobs(image, folder)
    sources = _sources(target, {blob.digest for blob in wanted}, mount_from)
    with Client(patience) as client, _threads(client, jobs) as pool:
        repository = Repository(
            client, target.registry, target.repository, actions="pull,push", insecure=insecure, sources=list(sources)
        )
        repository.login()
        there = pool.map(lambda blob: repository.has(blob.digest, blob.size), wanted)
        lacking = [blob for blob, is_there in zip(wanted, there, strict=True) if not is_there]
        begun = dict(_mounted(repository, lacking, sources, pool))
        missing = [blob for blob in lacking if blob.digest not in begun or begun[blob.digest]]
        _require(missing, begun, repository)
        _send(repository, missing, begun, chunk, pool)
        media_type = json.loads(image.manifest).get("mediaType", layout.MANIFEST)
        digest = repository.put_manifest(target.reference, str(media_type), image.manifest)
    _remember(target, [blob.digest for blob in wanted])
    return Outcome(
        target.name,
        digest,
        len(wanted) - len(lacking),
        len(lacking) - len(missing),
        len(missing),
        sum(blob.size for blob in missing),
    )


@contextmanager
def _threads(client: Client, jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads give up at once when something fails, or after Ctrl-C."""
    pool = ThreadPoolExecutor(max(1, jobs))
    try:
        yield pool
    except BaseException:
        client.abort()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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


def _send(
    repository: Repository,
    missing: Sequence[Blob],
    begun: Mapping[str, Upload | None],
    chunk: int,
    pool: ThreadPoolExecutor,
) -> None:
    large = [blob for blob in missing if blob.size > CHUNK]
    small = [blob for blob in missing if blob.size <= CHUNK]
    with console.progress(len(large) + bool(small), sum(blob.size for blob in missing)) as progress:

        def send(blob: Blob, bar: console.Bar) -> None:
            upload.send(repository, blob, bar.advance, begun=begun.get(blob.digest), chunk=chunk)

        def send_large(blob: Blob) -> None:
            with progress.file(blob.what, blob.size) as bar:
                send(blob, bar)

        def finish(jobs: Iterable[Future[None]]) -> None:
            for job in as_completed(jobs):
                job.result()

        if small:
            name = small[0].what if len(small) == 1 else f"{len(small)} small blobs"
            with progress.file(name, sum(blob.size for blob in small)) as bar:
                finish([pool.submit(send, blob, bar) for blob in small])
        finish([pool.submit(send_large, blob) for blob in large])


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
    with suppress(AikitError, ValueError, TypeError, AttributeError, RecursionError):
        said = json.loads(files.read_bounded(_memory_file(), _MEMORY))
        return {
            str(registry): {str(name): [str(digest) for digest in digests] for name, digests in repositories.items()}
            for registry, repositories in said.items()
        }
    return {}


def _remember(target: Reference, digests: list[str]) -> None:
    memory = _memory()
    known = memory.setdefault(target.registry, {})
    known.pop(target.repository, None)
    known[target.repository] = digests
    for oldest in list(known)[:-_REPOSITORIES]:
        del known[oldest]
    with suppress(AikitError):  # it was pushed, with or without a memory of it
        files.write_atomic(_memory_file(), json.dumps(memory).encode())


def _memory_file() -> Path:
    return files.cache_folder() / "pushed.json"
