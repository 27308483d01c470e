"""How the command line speaks to people: everything that is printed goes through here, escaped.

Names, texts, answers of servers and what programs say come from others: a control character among them could set the
clipboard or fake a line, an override of the direction of writing could show another command than the one that runs.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, TextIO

from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.redact import printable, without_secrets

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_EVERY = 10  # seconds between two lines where there is no terminal for bars


class Verbosity(IntEnum):
    """How much is said beside errors, warnings and what was asked for."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


# What the user asked for; a command sets it before it does anything.
verbosity = Verbosity.NORMAL


def prepare() -> None:
    """Before anything is printed: what the terminal's encoding lacks is escaped, too."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python does for stderr


def say(*lines: str, err: bool = False) -> None:
    """Print what people may want to know, a line an argument; nothing with --quiet. To stdout, or stderr with `err`."""
    if verbosity >= Verbosity.NORMAL:
        _print(sys.stderr if err else sys.stdout, lines)


def show(*lines: str) -> None:
    """Print what was asked for, a line an argument, to stdout."""
    _print(sys.stdout, lines)


def write(text: str) -> None:
    """Print what a program may read, to stdout: as it is, and escaped only on a terminal."""
    if sys.stdout and sys.stdout.isatty():
        show(*text.removesuffix("\n").split("\n"))
    else:
        _write(sys.stdout, text)


def piece(text: str) -> None:
    """Print a part of a text that is still coming, to stdout, escaped but for its line breaks and tabs."""
    _write(sys.stdout, "".join(c if c in "\n\t" else printable(c) for c in text), flush=True)


def trace(line: str) -> None:
    """A request or a command that was run, shown as `$ LINE` with --verbose. Addresses in it are blanked by the caller."""
    if verbosity >= Verbosity.VERBOSE:
        _print(sys.stderr, [f"$ {without_secrets(line)}"])


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to stderr: coloured on a terminal, unless NO_COLOR is set. Notes not with --quiet."""
    quiet = verbosity < Verbosity.NORMAL
    found = [finding for finding in diagnostics if not (quiet and finding.severity is Severity.NOTE)]
    if found:
        from aikit_nix.base import diagnostics as render

        colour = _terminal() and not os.environ.get("NO_COLOR")
        _write(sys.stderr, render.text(found, colour=colour))


def flush() -> None:
    """Let what was printed reach stdout. Raises AikitError where it cannot, and prints nothing more then."""
    _write(sys.stdout, "", flush=True)


def size(count: int) -> str:
    """Bytes as people read them: `4.1 GB`."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


@contextmanager
def progress(files: int, total: int) -> Iterator[Progress]:
    """Show how some files come along: bars on a terminal, else a line now and then, nothing when quiet.

    `total` is the bytes of those whose size is known.
    """
    global _bars
    if not _terminal() or verbosity == Verbosity.QUIET or _bars:
        yield Progress(files, total, None)
        return
    with _rich_bars() as _bars:
        try:
            yield Progress(files, total, _bars)
        finally:
            _bars = None


class Progress:
    """Counts the bytes of files that come at the same time."""

    def __init__(self, files: int, total: int, bars: Bars | None) -> None:
        self._files = files
        self._ended = 0
        self._bars = bars
        self._all = Bar("total", total, bars if files > 1 else None)
        self._said = time.monotonic()

    @contextmanager
    def file(self, name: str, total: int | None) -> Iterator[Bar]:
        """One of the files; `name` may come from elsewhere."""
        bar = Bar(name, total, self._bars, self)
        if not self._bars and self._files == 1:
            say(f"{bar.name}: {size(total)}" if total is not None else f"{bar.name}: begins", err=True)
        try:
            yield bar
        except BaseException:
            bar.remove()
            raise
        else:
            if not self._bars:
                say(f"{bar.name}: done, {size(bar.done)} in {bar.seconds:.0f} s", err=True)
        finally:
            with _counting:
                self._ended += 1

    def moved(self, count: int, total: int, *, now: bool) -> None:
        """So many bytes more of all are there, which are so many more than was known."""
        self._all.move(count, (self._all.total or 0) + total, now=now)
        if not self._bars and time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            say((f"{self._ended} of {self._files} files, " if self._files > 1 else "") + str(self._all), err=True)


class Bar:
    """One file's progress, or that of all; told by the thread that has the file."""

    def __init__(self, name: str, total: int | None, bars: Bars | None, whole: Progress | None = None) -> None:
        self.name = printable(name)
        self.total = total
        self.done = 0  # bytes, as are the next
        self._moved = 0  # of them in this run, for the rate
        self._bars = bars
        self._task = bars.add_task(self.name, total=total or None) if bars else None
        self._whole = whole
        self._started = time.monotonic()
        self._noted = ""

    @property
    def seconds(self) -> float:
        """Since it began."""
        return max(time.monotonic() - self._started, 0.001)

    def advance(self, count: int) -> None:
        """So many bytes more came."""
        self.move(count, self.total)

    def found(self, count: int) -> None:
        """So many bytes more were there already."""
        self.move(count, self.total, now=False)

    def restart(self, total: int | None) -> None:
        """Nothing of the file is there, and this is its size, where it is known."""
        self.move(-self.done, total, now=False)

    def move(self, count: int, total: int | None, *, now: bool = True) -> None:
        """So many bytes more (or fewer) are there of so many; `now`: they came just now."""
        with _counting:
            more = (total or 0) - (self.total or 0)
            self.done, self.total = self.done + count, total
            self._moved += count if now else 0
            if self._bars and self._task is not None:
                self._bars.update(self._task, completed=self.done, total=total or None)
            if self._whole:
                self._whole.moved(count, more, now=now)

    def remove(self) -> None:
        """Show it no more."""
        if self._bars and self._task is not None:
            self._bars.remove_task(self._task)

    def note(self, text: str) -> None:
        """Say something about the file, once."""
        if text != self._noted:
            self._noted = text
            say(f"{self.name}: {text}", err=True)

    def __str__(self) -> str:
        rate = max(self._moved, 0) / self.seconds
        line = size(self.done)
        if self.total:
            line += f" of {size(self.total)} ({min(100, 100 * self.done // self.total)} %)"
        line += f", {size(int(rate))}/s"
        if self.total and self.total > self.done and rate > 0:
            line += f", {_duration((self.total - self.done) / rate)} left"
        return line


_counting = threading.RLock()
_bars: Bars | None = None  # what is on the terminal at the moment


def _rich_bars() -> Bars:
    from rich import progress as rich
    from rich.console import Console

    return rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def _terminal() -> bool:
    return bool(sys.stderr) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _print(stream: TextIO | None, lines: Iterable[str]) -> None:
    # tabs are harmless, and indent what is shown
    _write(stream, "".join("\t".join(map(printable, line.split("\t"))) + "\n" for line in lines), flush=True)


def _write(stream: TextIO | None, text: str, *, flush: bool = False) -> None:
    """Raises AikitError where stdout takes no more; of stderr, nobody would hear."""
    if stream is None:  # it was closed before we came
        return
    if _bars and stream is sys.stderr:
        _bars.console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        return
    try:
        stream.write(text)
        if flush:
            stream.flush()
    except OSError as failed:
        problem = unwritable(failed, stream)
        if stream is not sys.stderr:
            raise problem from None


def unwritable(failed: OSError, stream: TextIO | None = None) -> AikitError:
    """The error for what stdout did not take. Ends the process where its reader has gone; nothing more is printed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # or Python tries again when it ends, and complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())
    if failed.errno == errno.EPIPE:
        sys.exit(1)
    return error(f"cannot write to standard output: {(failed.strerror or str(failed)).lower()}", code="unwritable")
