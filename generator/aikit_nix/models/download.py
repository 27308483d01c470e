"""Downloads that people can trust: hashed and checked while they stream, whole or not there.

What a run that was cut off left behind is taken up again where a hash will judge it; without one nobody could tell
whether it is whole, and of the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, collect, error
from aikit_nix.base.hashing import Digests, Hasher, hash_file
from aikit_nix.base.redact import shown
from aikit_nix.http.client import Client, HttpError, Trouble
from aikit_nix.models.origin import Download, Pace, Reading
from aikit_nix.models.partial import Partial, check_space


@dataclass(frozen=True)
class Fetched:
    """A file that is whole, and was checked. `validator` tells its version from others: see Reading."""

    download: Download
    file: Path
    digests: Digests
    validator: str = ""


def fetch_all(
    downloads: Sequence[Download],
    client: Client,
    *,
    jobs: int = 4,
    pace: Pace | None = None,
    then: Callable[[Fetched], object] = lambda _: None,
) -> list[Fetched]:
    """Fetch files, some at a time; `then` is called in the thread of each one that is whole.

    Where some fail, the others go on; then AikitError is raised with what happened to each. What is there stays, for
    the next time. After Ctrl-C too.
    """
    check_space((one.to, one.size or 0) for one in downloads)
    with console.progress(len(downloads), sum(one.size or 0 for one in downloads)) as progress:

        def work(download: Download) -> Fetched:
            with progress.file(download.name, download.size) as bar:
                return _Transfer(download, client, pace, bar).run(then)

        pool = ThreadPoolExecutor(max(1, jobs))
        try:
            futures = [pool.submit(work, one) for one in downloads]
            return collect(future.result for future in futures)
        except AikitError:
            raise
        except BaseException:
            client.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


class _Transfer:
    """One download on its way."""

    def __init__(self, download: Download, client: Client, pace: Pace | None, bar: console.Bar) -> None:
        self._download = download
        self._client = client
        self._reading = Reading(download, client, pace)
        self._bar = bar
        self._hasher: Hasher | None = None
        self._inherited = False  # bytes of an earlier run are in it

    def run(self, then: Callable[[Fetched], object]) -> Fetched:
        """Raises AikitError that names the download."""
        download = self._download
        try:
            with Partial(download.to, self._wait_for_other) as partial:
                done = Fetched(download, download.to, self._fetch(partial), self._reading.validator)
                then(done)  # still alone with the file, which may be thrown away now
                return done
        except HttpError as problem:
            raise download.error(problem) from None
        except OSError as problem:
            reason = f"{problem.strerror or problem} ({shown(str(download.to.parent))})"
            raise error(f"{download.name}: cannot be written: {reason}", download.at, "file-write") from None
        finally:
            if self._hasher:
                self._hasher.close()

    def _wait_for_other(self) -> None:
        self._go_on()
        self._bar.note("waits: another process downloads it")

    def _go_on(self) -> None:
        if self._client.is_aborted:
            raise HttpError(Trouble.INTERRUPTED, "interrupted")

    def _fetch(self, partial: Partial) -> Digests:
        download = self._download
        if not download.sha256 or (download.size is not None and partial.size > download.size):
            partial.cut(0)
        if partial.size and download.size is None:
            digests = hash_file(download.to, download.layer_of)
            if not download.wrong(digests):
                return digests
        self._take_up(partial)
        while True:
            self._receive(partial)
            digests = self._digests()
            if not (wrong := download.wrong(digests)):
                return digests
            partial.cut(0)
            if not self._inherited:
                raise wrong
            self._inherited = False
            self._bar.note("what an earlier run left is damaged: fetched again")

    def _take_up(self, partial: Partial) -> None:
        """Hash what an earlier run left."""
        if partial.size:
            self._inherited = True
            self._hasher = self._new_hasher()
            for block in partial.blocks():
                self._hasher.update(block)
                self._bar.found(len(block))
                self._go_on()

    def _receive(self, partial: Partial) -> None:
        try:
            for place, piece in self._reading.pieces(partial.size):
                hasher = self._hasher if place == partial.size else None
                hasher = hasher or self._begin(partial)
                partial.append(piece)
                hasher.update(piece)
                self._bar.advance(len(piece))
                self._go_on()
        except HttpError as problem:
            if problem.trouble is Trouble.TOO_LONG:
                partial.cut(0)
            raise

    def _begin(self, partial: Partial) -> Hasher:
        """The file comes from its first byte on."""
        if self._hasher:
            self._hasher.close()
        partial.cut(0)
        check_space([(self._download.to, self._reading.size or 0)])
        self._inherited = False
        self._hasher = self._new_hasher()
        self._bar.restart(self._reading.size)
        return self._hasher

    def _digests(self) -> Digests:
        hasher, self._hasher = self._hasher or self._new_hasher(), None
        digests = hasher.digests()
        if self._download.layer_of and not digests.layer:
            # No size was stated before the first byte, so that the layer's hash could not begin: read all again.
            return hash_file(self._download.to, self._download.layer_of)
        return digests

    def _new_hasher(self) -> Hasher:
        size, layer_of = self._reading.size, self._download.layer_of
        return Hasher(layer_of(size) if layer_of and size is not None else None)
