"""aikit.lock: what is known of the bytes of every model, reviewed and committed beside the aikitfile.

JSON, sorted, one model a block. An entry belongs to the model of the aikitfile with the same name and source; it lists the
files that the source stands for, where each lands in the image, and what the origin says about itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aikit_nix.aikitfile.types import Aikitfile, LayerPin, Model, Pin
from aikit_nix.base import console, files
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.models import agreement
from aikit_nix.sources import MODELS, RefusedError, http
from aikit_nix.sources.gguf import MOST, Facts, Shape
from aikit_nix.sources.names import relative_path, unprintable
from aikit_nix.sources.role import Role

VERSION = 1
NAME = "aikit.lock"
_MAX_BYTES = 64 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """What the place that a model comes from says about itself, for people and bills of materials.

    `revision` is a commit or a digest. `base_models` are Hugging Face repositories.
    """

    kind: str
    repository: str | None = None
    revision: str | None = None
    license: str | None = None
    base_models: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        values = {
            "kind": self.kind,
            "repository": self.repository,
            "revision": self.revision,
            "license": self.license,
            "baseModels": list(self.base_models),
        }
        return {key: value for key, value in values.items() if value}


@dataclass(frozen=True)
class Entry:
    """One model of the aikitfile: its name and source as written, and its files as (path in the image, pin)."""

    name: str
    source: str
    origin: Origin
    files: tuple[tuple[str, Pin], ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.source

    @property
    def is_as_is(self) -> bool:
        """Whether the user means its files though one is not what its name says."""
        return any(pin.as_is for _, pin in self.files)

    def summary(self) -> str:
        """A few words for people: digest or number of files, size, origin."""
        size = sum(pin.size or 0 for _, pin in self.files)
        what = f"sha256 {self.files[0][1].sha256[:12]}…" if len(self.files) == 1 else f"{len(self.files)} files"
        revision = f" at {self.origin.revision.removeprefix('sha256:')[:12]}" if self.origin.revision else ""
        return f"{what}, {console.size(size)}, {self.origin.kind}{revision}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source": self.source,
            "origin": self.origin.to_json(),
            "files": [file_to_json(path, pin) for path, pin in sorted(self.files)],
        }


@dataclass(frozen=True)
class Lock:
    """The whole lock. `file` is its name in messages."""

    file: str
    entries: Mapping[tuple[str, str], Entry]

    @classmethod
    def of(cls, file: str, entries: Iterable[Entry]) -> Lock:
        return cls(file, {entry.key: entry for entry in entries})

    def to_json(self) -> str:
        """The same pins give the same bytes."""
        models = [self.entries[key].to_json() for key in sorted(self.entries)]
        return json.dumps({"version": VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n"

    def files(self) -> list[tuple[str, Pin]]:
        """All files, as (path in the image, pin)."""
        return [file for entry in self.entries.values() for file in entry.files]

    def entry(self, model: Model) -> Entry | None:
        """What is known of a model of the aikitfile."""
        return self.entries.get((model.name.value, model.source.value.text))

    def filled(self, seen: Mapping[str, Pin]) -> Lock:
        """The lock with what the bytes of files say (by path in the image), where it says the same sha256."""

        def fill(path: str, pin: Pin) -> Pin:
            found = seen.get(path)
            if found is None or found.sha256 != pin.sha256:
                return pin
            return replace(
                pin,
                blake3=found.blake3 or pin.blake3,
                layer=found.layer or pin.layer,
                gguf=found.gguf or pin.gguf,
            )

        return Lock.of(
            self.file,
            (
                replace(entry, files=tuple((path, fill(path, pin)) for path, pin in entry.files))
                for entry in self.entries.values()
            ),
        )

    def unused(self, models: Sequence[Model]) -> list[Entry]:
        """Entries that no model has: it was renamed or removed."""
        wanted = {(model.name.value, model.source.value.text) for model in models}
        return [entry for key, entry in sorted(self.entries.items()) if key not in wanted]


def beside(aikitfile: Path) -> Path:
    """Where an aikitfile's lock lies unless told otherwise."""
    name = NAME if aikitfile.name == "aikitfile.yaml" else f"{aikitfile.stem}.lock"
    if name in ("flake.lock", aikitfile.name):  # Nix' own, and the aikitfile itself
        name = f"{aikitfile.name}.lock"
    return aikitfile.parent / name


def read(path: Path) -> Lock | None:
    """The lock in a file; None where there is none. Raises AikitError where it is no lock."""
    if not os.path.lexists(path):
        return None
    return parse(files.read_bounded(path, _MAX_BYTES), str(path))


def parse(data: bytes, file: str) -> Lock:
    """The lock in some bytes. Raises AikitError, which says what to do."""
    mend = "put it back from version control, or write it anew with `aikit-nix lock`"
    if re.search(rb"^(<{7}|>{7}) ", data, re.MULTILINE):
        raise error(
            f"{file} has conflict markers of a merge in it: take either side, then run `aikit-nix lock`", code="lock"
        )
    try:
        content = json.loads(data)
        version = content["version"]
        if isinstance(version, int) and version > VERSION:
            raise error(
                f"{file} is of version {version}, from a newer aikit-nix: upgrade this one ({VERSION})", code="lock"
            )
        if type(version) is not int or version != VERSION:
            raise ValueError(f"version {version!r} is not known")
        return Lock.of(file, (_entry(value) for value in content["models"]))
    except AikitError:
        raise
    except RecursionError:
        raise error(f"{file} is no aikit.lock (it nests too deep): {mend}", code="lock") from None
    except KeyError as lacks:
        raise error(f"{file} is no aikit.lock (it lacks {lacks}): {mend}", code="lock") from None
    except (ValueError, TypeError, AttributeError) as bad:
        raise error(f"{file} is no aikit.lock ({' '.join(str(bad).split())[:200]}): {mend}", code="lock") from None


def apply(aikitfile: Aikitfile, lock: Lock | None) -> tuple[Aikitfile, list[Diagnostic]]:
    """The aikitfile with each model's pin, a source of several files as a model for each file; and what is at odds.

    A sha256 of the aikitfile counts, with or without a lock.
    """
    found: list[Diagnostic] = []
    listed = {model.path for model in aikitfile.models}
    models = [each for model in aikitfile.models for each in _apply(model, lock, listed, found)]
    return replace(aikitfile, models=tuple(models)), found


def _apply(model: Model, lock: Lock | None, listed: set[str], found: list[Diagnostic]) -> Iterator[Model]:
    entry = lock.entry(model) if lock else None
    if lock is None or entry is None:
        pin = Pin(model.sha256.value, url=_public_url(model)) if model.sha256 and not model.is_several else None
        yield replace(model, pin=pin)
        return
    own = dict(entry.files)
    if model.sha256 and model.sha256.value != (own.get(model.path) or entry.files[0][1]).sha256:
        pinned = (own.get(model.path) or entry.files[0][1]).sha256
        found.append(
            Diagnostic(
                Severity.ERROR,
                "sha256-mismatch",
                f"the sha256 here is {model.sha256.value}, that of {lock.file} is {pinned}: correct the one that is wrong"
                f" (`aikit-nix lock --update` takes this one)",
                model.sha256.at,
            )
        )
    templates = model.prompt_templates
    for path, pin in entry.files:
        # The other shards of a model may be listed as models of their own
        if path == model.path or path not in listed:
            yield replace(model, path=path, pin=pin, prompt_templates=templates)
            templates = ()


def _public_url(model: Model) -> str | None:
    url: str | None = getattr(model.source.value, "url", None)
    return url


def unpinned(models: Iterable[Model]) -> AikitError | None:
    """One error that names every model whose bytes nothing fixes."""
    missing = [model for model in models if model.pin is None]
    if not missing:
        return None
    problems = [
        Diagnostic(
            Severity.ERROR, "not-pinned", f"nothing says which file the model `{model.name.value}` is", model.source.at
        )
        for model in missing
    ]
    count = "it" if len(missing) == 1 else f"all {len(missing)}"
    last = problems[-1]
    problems[-1] = replace(last, message=f"{last.message}: pin {count} with `aikit-nix lock`")
    return AikitError(*problems)


def _entry(value: Mapping[str, Any]) -> Entry:
    origin = value.get("origin") or {}
    files = tuple(file_from_json(each) for each in value["files"])
    if not files:
        raise ValueError(f"the model {value['name']!r} has no files")
    if len({path for path, _ in files}) < len(files):
        raise ValueError(f"the model {value['name']!r} has two files on one path")
    entry = Entry(
        _string(value["name"]),
        _string(value["source"]),
        Origin(
            _string(origin.get("kind", "unknown")),
            _optional(origin.get("repository")),
            _optional(origin.get("revision")),
            _optional(origin.get("license")),
            tuple(map(_string, origin.get("baseModels", ()))),
        ),
        files,
    )
    agreement.require(entry)
    return entry


def file_from_json(value: Mapping[str, Any]) -> tuple[str, Pin]:
    """A file's path in the image and its pin. Raises ValueError, KeyError, TypeError and AttributeError for what is none."""
    path = _string(value["path"])
    try:
        if not path.startswith(MODELS + "/"):
            raise RefusedError("is not below /models")
        relative_path(path.removeprefix(MODELS + "/"))
    except RefusedError as bad:
        raise ValueError(f"{path!r} {bad}") from None
    layer = _layer(value["layer"]) if value.get("layer") else None
    if layer:
        from aikit_nix.models.layer import layer_size

        if layer.size != layer_size(path, _size(value["size"])):
            layer = None  # by an older version of the rule
    url = _optional(value.get("url"))
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no URL")
    if url is not None:
        http.clean(url)
    return path, Pin(
        _digest(value["sha256"]),
        _size(value["size"]),
        _digest(value["blake3"]) if value.get("blake3") else None,
        layer,
        url,
        value.get("private") is True,
        _optional(value.get("member")),
        _facts(value["gguf"]) if value.get("gguf") is not None else None,
        value.get("asIs") is True,
    )


def file_to_json(path: str, pin: Pin) -> dict[str, Any]:
    """A file as the lock has it."""
    value: dict[str, Any] = {"path": path}
    if pin.url:
        value["url"] = pin.url
    if pin.private:
        value["private"] = True
    if pin.member:
        value["member"] = pin.member
    value |= {"size": pin.size, "sha256": pin.sha256}
    if pin.blake3:
        value["blake3"] = pin.blake3
    if pin.layer:
        value["layer"] = {"digest": pin.layer.digest, "size": pin.layer.size}
    if pin.gguf:
        value["gguf"] = _facts_to_json(pin.gguf)
    if pin.as_is:
        value["asIs"] = True
    return value


def _layer(value: Mapping[str, Any]) -> LayerPin:
    return LayerPin("sha256:" + _digest(_string(value["digest"]).removeprefix("sha256:")), _size(value["size"]))


def _facts(value: Mapping[str, Any]) -> Facts:
    context, pooling = numbers = [value.get(key) for key in ("contextLength", "pooling")]
    if not all(each is None or (type(each) is int and 0 <= each < 1 << 32) for each in numbers):
        raise ValueError(f"{numbers!r} are no numbers of a GGUF")
    shape = _shape(value["memory"]) if "memory" in value else None
    role = Role(value.get("role", Role.MODEL))
    return Facts(value.get("chatTemplate") is True, context, pooling, shape, role)


def _shape(value: Mapping[str, Any]) -> Shape:
    if not all(type(each) is int and 0 <= each < MOST for each in value.values()):
        raise ValueError("the numbers below `memory` are none of a GGUF")
    return Shape(**{key: number for key, number in value.items() if key in Shape.__dataclass_fields__})


def _facts_to_json(facts: Facts) -> dict[str, Any]:
    value: dict[str, Any] = {"chatTemplate": facts.chat_template}
    if facts.context_length is not None:
        value["contextLength"] = facts.context_length
    if facts.pooling is not None:
        value["pooling"] = facts.pooling
    if facts.shape is not None:
        value["memory"] = {key: number for key, number in asdict(facts.shape).items() if number}
    if facts.role is not Role.MODEL:
        value["role"] = facts.role.value
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    if bad := unprintable(value):
        raise ValueError(f"a text holds {bad}")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _string(value)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is not 64 lower-case hex digits")
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 60:
        raise ValueError(f"{value!r} is no size in bytes")
    return value
