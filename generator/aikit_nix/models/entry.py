"""An entry of aikit.lock: what a model of the aikitfile is, as types and as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base import console
from aikit_nix.sources import MODELS, RefusedError, http
from aikit_nix.sources.gguf import MOST, Facts, Shape
from aikit_nix.sources.names import relative_path, unprintable
from aikit_nix.sources.role import Role

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


def from_json(value: Mapping[str, Any]) -> Entry:
    """An entry as the lock has it. Raises ValueError, KeyError, TypeError and AttributeError for what is none."""
    origin = value.get("origin") or {}
    files = tuple(file_from_json(each) for each in value["files"])
    if not files:
        raise ValueError(f"the model {value['name']!r} has no files")
    if len({path for path, _ in files}) < len(files):
        raise ValueError(f"the model {value['name']!r} has two files on one path")
    return Entry(
        _string(value["name"]),
        _string(value["source"]),
        Origin(
            _string(origin.get("kind", "unknown")),
            _optional(origin.get("repository")),
            _optional(origin.get("revision")),
            _optional(origin.get("license")),
            tuple(map(_string, _list(origin.get("baseModels", [])))),
        ),
        files,
    )


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


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
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
