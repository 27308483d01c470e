"""The aikitfile: text → frozen dataclasses that remember where each value stood.

Faithful to AIKit (yaml.v2, not strict): unknown keys are ignored, of double keys the last counts, scalars of any type are
taken as text, null is absent. What AIKit ignored in silence is a warning here; what it built wrong is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from aikit_nix import source, yamltree
from aikit_nix.compat import Escapes
from aikit_nix.errors import AikitError, Diagnostic, Position, Severity, error
from aikit_nix.reader import Located

__all__ = ["Aikitfile", "Backend", "Located", "Model", "PromptTemplate", "Runtime", "parse", "read"]
_MOST = 100


class Runtime(StrEnum):
    """The instruction set or accelerator that the engine is compiled for."""

    AVX = "avx"
    AVX2 = "avx2"
    AVX512 = "avx512"
    CUDA = "cuda"


class Backend(StrEnum):
    """An inference backend besides llama-cpp, which is always there."""

    STABLEDIFFUSION = "stablediffusion"
    EXLLAMA = "exllama"
    EXLLAMA2 = "exllama2"


@dataclass(frozen=True)
class PromptTemplate:
    """A file `/models/<name>.tmpl`; the text is final."""

    name: Located[str]
    template: Located[str]

    @property
    def path(self) -> str:
        """Where the template lies in the image."""
        return f"{source.MODELS}/{self.name.value}.tmpl"


@dataclass(frozen=True)
class Model:
    """A model's file, which lands on `path` in the image.

    `source` is an http(s) URL or a path relative to the aikitfile; `sha256` is 64 lower-case hex digits.
    """

    at: Position
    name: Located[str]
    source: Located[str]
    sha256: Located[str] | None
    prompt_templates: tuple[PromptTemplate, ...]
    path: str

    @property
    def url(self) -> str | None:
        """The URL; None for a local file."""
        return self.source.value if self.source.value.startswith(("http://", "https://")) else None


@dataclass(frozen=True)
class Aikitfile:
    """A valid aikitfile. `data` are its bytes; `config` is the final text of /config.yaml."""

    file: str
    data: bytes
    debug: bool
    runtime: Located[Runtime] | None
    backends: tuple[Located[Backend], ...]
    models: tuple[Model, ...]
    config: Located[str] | None
    load_to_memory: tuple[Located[str], ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the file's bytes."""
        import hashlib  # OpenSSL takes its time to load

        return hashlib.sha256(self.data).hexdigest()


def parse(data: bytes, file: str, escapes: Escapes = Escapes.AUTO) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """The aikitfile in `data`, and warnings and notes by position. `file` is its name in messages.

    Raises AikitError with every error of the file and with the warnings up to there. Reads nothing but `data`.
    """
    from aikit_nix import parser, review  # they build on what this module defines

    text = yamltree.decode(data, file)
    root, found = yamltree.compose(text, file)
    result = parser.Parser(file, escapes, found).aikitfile(root, data)
    errors = _most(found, Severity.ERROR)
    if errors:
        raise AikitError(*sorted([*errors, *_most(found, Severity.WARNING)], key=_order))
    found.extend(islice(review.review(result, tuple(text.split("\n"))), 2 * _MOST))
    shown = [finding for severity in (Severity.WARNING, Severity.NOTE) for finding in _most(found, severity)]
    return result, tuple(sorted(shown, key=_order))


def _most(found: list[Diagnostic], severity: Severity) -> list[Diagnostic]:
    """The first ones of a kind, and how many more there are: a broken file may give thousands."""
    some = [finding for finding in found if finding.severity is severity]
    if len(some) <= _MOST:
        return some
    return [*some[:_MOST], Diagnostic(severity, "more", f"and {len(some) - _MOST} more like these", some[_MOST].at)]


def _order(finding: Diagnostic) -> tuple[int, int, str]:
    return (finding.at.line, finding.at.column, finding.message) if finding.at else (0, 0, finding.message)


def read(path: Path, escapes: Escapes = Escapes.AUTO) -> tuple[Aikitfile, tuple[Diagnostic, ...]]:
    """`parse` of a file on the disk, which messages call as the user did."""
    try:
        with path.open("rb") as stream:
            # one byte more than parse allows: what is larger is never read whole
            data = stream.read(yamltree.MAX_BYTES + 1)
    except OSError as failed:
        hint = (
            ": name the aikitfile, or write one with `aikit-nix init`" if isinstance(failed, FileNotFoundError) else ""
        )
        reason = (failed.strerror or type(failed).__name__).lower()
        raise error(f"cannot read {path}: {reason}{hint}", code="unreadable") from None
    except ValueError:
        raise error(f"cannot read {str(path)!r}: that is no file name", code="unreadable") from None
    return parse(data, str(path), escapes)
