"""One root error; diagnostics that say where in the aikitfile and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Severity(Enum):
    """How bad a diagnostic is. Only ERROR makes a command fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; line and column count from 1, columns in Unicode code points.

    `text` is the whole text that was read, to show the line: nobody reads the file for it again.
    """

    file: str
    line: int
    column: int
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Located(Generic[T]):
    """A value and where it stood."""

    value: T
    at: Position


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what is wrong, and in the same sentence what to do about it.

    `code` is a short stable kebab-case name of the rule (`unknown-key`), for CI formats.
    """

    severity: Severity
    code: str
    message: str
    at: Position | None = None

    def __str__(self) -> str:
        """The one-line form: `error: FILE:LINE:COL: what, and what to do`."""
        where = f"{self.at}: " if self.at else ""
        return f"{self.severity.value}: {where}{self.message}"


class AikitError(Exception):
    """Everything the user can mend. The command line prints its diagnostics and exits with 1."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = diagnostics


def error(message: str, at: Position | None = None, code: str = "error") -> AikitError:
    """An AikitError with one diagnostic."""
    return AikitError(Diagnostic(Severity.ERROR, code, message, at))


def collect(calls: Iterable[Callable[[], T]]) -> list[T]:
    """What each of the calls gives. Raises one AikitError with the diagnostics of all that failed, when all were made."""
    found: list[T] = []
    problems: list[Diagnostic] = []
    for call in calls:
        try:
            found.append(call())
        except AikitError as failed:
            problems += failed.diagnostics
    if problems:
        raise AikitError(*problems)
    return found


class RefusedError(ValueError):
    """A source that cannot be used; the message says why and what to do instead."""
