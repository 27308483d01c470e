"""`aikit-nix lock`: from sources as they are written to pins, by what their origins say.

Weights are downloaded only where an origin does not say their sha256, and then into the store, where `nix build` and
`aikit-nix fetch` find them.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, assert_never

from msgspec import structs

from aikit_nix.aikitfile.types import Aikitfile, Model, Pin
from aikit_nix.base import console, files
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, collect, error
from aikit_nix.models import agreement, fetch, project, seen, whole
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock
from aikit_nix.models.lock import read as read_lock
from aikit_nix.models.remote import Remote, judged
from aikit_nix.sources import (
    MODELS,
    HubFile,
    HubRepository,
    Local,
    Reference,
    RefusedError,
    Source,
    Web,
    http,
    huggingface,
    judge,
    oci,
)
from aikit_nix.sources.names import first_shard, shards

if TYPE_CHECKING:
    from aikit_nix.http.client import Client
    from aikit_nix.registry.client import Repository

K = TypeVar("K")
R = TypeVar("R")

_AT_ONCE = 8  # requests for descriptions


@dataclass(frozen=True)
class Change:
    """What became of one model's entry; `before` or `after` is None where there was or is none."""

    before: Entry | None
    after: Entry | None

    def __str__(self) -> str:
        if self.after is None:
            return f"- {self.before.name if self.before else ''}: no longer in the aikitfile"
        each = [f"    {path}, {console.size(pin.size or 0)}" for path, pin in self.after.files]
        first = f"{'~' if self.before else '+'} {self.after.name}: {self.after.summary()}"
        return "\n".join([first, *(each if len(each) > 1 else [])])


def make(
    aikitfile: Aikitfile,
    folder: Path,
    old: Lock | None,
    file: str,
    *,
    update: Callable[[str], bool] = lambda _: False,
    as_is: Collection[str] = (),
    offline: bool = False,
) -> tuple[Lock, list[Change]]:
    """The lock for an aikitfile (as it is written, no lock applied), and what differs from the old one.

    Entries that still fit are kept, unless `update` says yes to the model's name. The models named in `as_is` are meant
    whatever their bytes are, and those that were pinned so. Raises AikitError for everything that
    cannot be pinned.
    """
    kept: list[Entry] = []
    wanted: list[Model] = []
    for model in aikitfile.models:
        entry = old.entry(model) if old else None
        anew = update(model.name.value) or model.name.value in as_is
        if entry and not model.is_local and not anew and _fits(entry, model):
            kept.append(entry)
        else:
            wanted.append(model)
    if offline and (far := [model for model in wanted if not model.is_local]):
        raise AikitError(
            *(
                _problem("offline", f"`{model.name.value}` is not pinned yet, which needs the network", model)
                for model in far
            )
        )
    meant = {model.name.value for model in wanted if old and (entry := old.entry(model)) and entry.is_as_is} | {*as_is}
    found = _resolve_all(aikitfile, wanted, folder, meant) if wanted else []
    # What the old lock claims of the same bytes stays, and is derived again where they are here. Of others nothing is
    # added: a lock does not depend on what this machine's store has.
    new = Lock.of(file, [*kept, *found]).filled(dict(old.files()) if old else {})
    new = new.filled(seen.derived((path, pin) for path, pin in new.files() if pin.layer or pin.blake3))
    whole.check(aikitfile, new)
    return new, _changes(old, new)


def write(lock: Lock) -> None:
    """Put the lock into its file: the old one or the new one, whatever happens. Raises AikitError."""
    files.write_atomic(Path(lock.file), lock.to_json().encode())
    forget(lock)


def forget(lock: Lock) -> None:
    """Remove what runs wrote down of files that the lock has by now; one may have been killed in between."""
    fetch.forget(file for entry in lock.entries.values() for file in entry.files)


def bring(aikitfile: Aikitfile, lock: Lock | None, jobs: int) -> tuple[int, bool]:
    """Bring the models of a pinned aikitfile into the store, and into its lock what their bytes say.

    Gives how many came, and whether the lock was written. Raises AikitError.
    """
    came = fetch.bring_models(aikitfile, jobs)
    if lock is None:
        return len(came), False
    known = came | seen.derived(each for each in lock.files() if each[0] not in came)
    seen.compare(lock.files(), known, lock.file)
    return len(came), complete(lock, known)


def complete(lock: Lock, known: Mapping[str, Pin]) -> bool:
    """Add to a lock what the bytes of models say, by path in the image; whether it was written. Raises AikitError."""
    now = read_lock(Path(lock.file))  # that took hours, perhaps: what was written there meanwhile stays
    if now is None or (fuller := now.filled(known)) == now:
        return False
    write(fuller)
    console.say(f"wrote {lock.file}: what the bytes say", err=True)
    return True


def missing(aikitfile: Aikitfile, lock: Lock | None) -> list[Diagnostic]:
    """Where a lock does not cover an aikitfile (as it is written), or covers more than that. For CI: no network, no models.

    Raises AikitError where it has a part of a model.
    """
    found = []
    for model in aikitfile.models:
        entry = lock.entry(model) if lock else None
        if entry is None:
            found.append(
                _problem("not-locked", f"`{model.name.value}` is not in the lock: run `aikit-nix lock`", model)
            )
        elif not _fits(entry, model):
            found.append(
                _problem(
                    "not-locked", f"the lock has another sha256 of `{model.name.value}`: run `aikit-nix lock`", model
                )
            )
    for entry in lock.unused(aikitfile.models) if lock else ():
        text = f"the lock has `{entry.name}` from {entry.source}, the aikitfile has not: run `aikit-nix lock`"
        found.append(Diagnostic(Severity.ERROR, "lock-unused", text))
    if lock and not found:
        whole.check(aikitfile, lock)
    return found


def _problem(code: str, message: str, model: Model) -> Diagnostic:
    return Diagnostic(Severity.ERROR, code, message, model.source.at)


def _fits(entry: Entry, model: Model) -> bool:
    return model.sha256 is None or any(pin.sha256 == model.sha256.value for _, pin in entry.files)


def _changes(old: Lock | None, new: Lock) -> list[Change]:
    before: Mapping[tuple[str, str], Entry] = old.entries if old else {}
    keys = sorted({*before, *new.entries})
    return [Change(before.get(key), new.entries.get(key)) for key in keys if before.get(key) != new.entries.get(key)]


def _resolve_all(aikitfile: Aikitfile, models: Sequence[Model], folder: Path, as_is: Collection[str]) -> list[Entry]:
    """The entries of models. Each origin is asked once, several at a time."""
    from aikit_nix.http.client import Client

    listed = {model.path for model in aikitfile.models}
    with Client() as client:
        repositories = {
            (source.repo, source.revision): model
            for model in models
            if isinstance(source := model.source.value, HubFile | HubRepository)
        }
        described = _together(repositories, lambda key, model: huggingface.describe(*key, client, _path(model)))
        resolver = _Resolver(listed, described, client, as_is)
        far = {index: model for index, model in enumerate(models) if not model.is_local}
        found = _together(far, lambda _, model: resolver.resolve(model))
        here = collect(
            partial(_named, model, partial(_local, model, folder, listed, as_is=model.name.value in as_is))
            for model in models
            if model.is_local
        )
        pins = fetch.learn([remote for _, remotes in found.values() for remote in remotes], client)
    entries = [
        _entry(far[index], origin, (pin for remote in remotes for pin in pins[remote]))
        for index, (origin, remotes) in found.items()
    ]
    return [*entries, *here]


def _together(wanted: Mapping[K, Model], action: Callable[[K, Model], R]) -> dict[K, R]:
    """`action` on each of `wanted`, in threads. Raises AikitError with the trouble of every model."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(_named, model, partial(action, key, model)) for key, model in wanted.items()]
        return dict(zip(wanted, collect(future.result for future in futures), strict=True))


def _named(model: Model, action: Callable[[], R]) -> R:
    """What `action` gives; raises AikitError, which says of what model it is."""
    name, at = model.name.value, model.source.at
    try:
        return action()
    except RefusedError as refused:
        raise AikitError(_problem("source", f"the source of `{name}` {refused}", model)) from None
    except AikitError as failed:
        said = failed.diagnostics
        raise AikitError(
            *(each if each.at else replace(each, at=at, message=f"`{name}`: {each.message}") for each in said)
        ) from None


@dataclass(frozen=True)
class _Resolver:
    """What one model's source stands for. `listed` are the paths that the aikitfile names itself."""

    listed: set[str]
    described: Mapping[tuple[str, str], huggingface.HubContents]
    client: Client
    as_is: Collection[str]

    def resolve(self, model: Model) -> tuple[Origin, list[Remote]]:
        """What its origin is, and the files there. Raises AikitError and RefusedError."""
        origin, files = self._files(model)
        for remote in files:
            if judge.is_piece(remote.name) and not remote.as_is:
                judged(model, remote.name, lambda: judge.look(io.BytesIO(), remote.name))  # noqa: B023
        return origin, files

    def _files(self, model: Model) -> tuple[Origin, list[Remote]]:
        source: Source = model.source.value
        origin = agreement.origin(source)
        match source:
            case Web():
                return origin, [self._web(model, source, path) for path in _completed(model, self.listed)]
            case HubFile() | HubRepository():
                said = self.described[source.repo, source.revision]
                origin = structs.replace(
                    origin, revision=said.commit, license=said.license, base_models=said.base_models
                )
                return origin, [self._hub(model, said, *each) for each in self._chosen(model, source, said)]
            case Reference():
                found = oci.describe(source, self.client)
                if found.left_out:
                    message = f"{' and '.join(found.left_out)} of {source.name} stay behind, as with AIKit: `config` can say it"
                    console.report([Diagnostic(Severity.NOTE, "left-out", message, model.source.at)])
                there = oci.repository(source, self.client)
                return structs.replace(origin, revision=found.digest), [
                    self._blob(model, there, blob) for blob in found.blobs
                ]
            case Local():
                raise AssertionError("local files are hashed, not asked for")
            case _:
                assert_never(source)

    def _web(self, model: Model, source: Web, path: str) -> Remote:
        url = source.url if path == model.path else http.beside(source, posixpath.basename(path))
        return self._remote(model, path, url, None, None)

    def _chosen(
        self, model: Model, source: HubFile | HubRepository, said: huggingface.HubContents
    ) -> Iterator[tuple[str, huggingface.RemoteFile]]:
        """Where each file lands, and the file."""
        for file in huggingface.chosen(source, said):
            if isinstance(source, HubRepository):
                yield f"{model.path}/{file.path}", file
                continue
            for path in _completed(model, self.listed):
                name = posixpath.join(posixpath.dirname(file.path), posixpath.basename(path))
                if name not in said.files:
                    raise RefusedError(f"is a model in parts, of which the repository lacks {posixpath.basename(path)}")
                yield path, said.files[name]

    def _hub(self, model: Model, said: huggingface.HubContents, path: str, file: huggingface.RemoteFile) -> Remote:
        each = huggingface.complete(file, said, self.client)
        url = huggingface.url(said.repo, said.commit, each.path)
        return self._remote(model, path, url, each.size, each.sha256, private=said.is_private)

    def _blob(self, model: Model, there: Repository, blob: oci.ArtifactFile) -> Remote:
        remote = self._remote(
            model, f"{MODELS}/{blob.path}", there.url(f"blobs/{blob.digest}"), blob.size, blob.sha256, private=True
        )
        return replace(remote, is_archive=blob.is_archive, is_gguf=blob.is_gguf)

    def _remote(
        self, model: Model, path: str, url: str, size: int | None, said: str | None, *, private: bool = False
    ) -> Remote:
        """`said` is the SHA-256 by the origin. Raises AikitError where the aikitfile has another."""
        own = model.sha256 if path == model.path else None
        if own and said not in (None, own.value):
            raise error(
                f"the sha256 here is {own.value}, the origin says {said}: correct it, or name the revision that you mean",
                own.at,
                "sha256-mismatch",
            )
        sha256 = said or (own.value if own else None)
        as_is = model.name.value in self.as_is
        return Remote(model, path, url, size, sha256, private, is_gguf=judge.expects_gguf(path), as_is=as_is)


def _path(model: Model) -> str:
    """What a model is of its repository on Hugging Face, if it is one file."""
    source = model.source.value
    return source.path if isinstance(source, HubFile) else ""


def _completed(model: Model, listed: set[str]) -> list[str]:
    """The model's path, and those of its other shards that the aikitfile does not list itself. Raises RefusedError."""
    folder, name = posixpath.split(model.path)
    first = first_shard(name)
    if first != name and posixpath.join(folder, first) not in listed:
        raise RefusedError(f"is a later part of a model: name the first, {first}, which brings the others")
    paths = [posixpath.join(folder, each) for each in shards(name)]
    return [path for path in paths if path == model.path or path not in listed]


def _entry(model: Model, origin: Origin, pins: Iterable[tuple[str, Pin]]) -> Entry:
    files = tuple(sorted(pins, key=lambda each: each[0]))
    try:
        return Entry.of(model.name.value, model.source.value.text, origin, files)
    except ValueError as unfit:
        raise AikitError(_problem("source", f"the source cannot be locked: {unfit}", model)) from None


def _local(model: Model, folder: Path, listed: set[str], *, as_is: bool) -> Entry:
    there = project.local_files(model, folder)
    _completed(model, listed)
    pins = [
        (path, project.hash_local(model, path, file, as_is=as_is))
        for path, file in there
        if path == model.path or path not in listed
    ]
    return _entry(model, agreement.origin(model.source.value), pins)
