"""What differs between two images, or two locks: pairs of a part's name and what each side has there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from aikit_nix.base.console import size
from aikit_nix.image.inspect import platform
from aikit_nix.image.layout import MODELS_LABEL, Image
from aikit_nix.models.lock import Lock


@dataclass(frozen=True)
class Difference:
    """A part of both sides, and what it is in each: None where it is not there."""

    part: str
    a: str | None
    b: str | None

    def lines(self) -> Iterator[str]:
        """As diff writes it."""
        yield self.part
        yield from (f"  {mark} {value}" for mark, value in (("-", self.a), ("+", self.b)) if value is not None)

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)


def images(a: Image, b: Image) -> list[Difference]:
    """All that differs, in the order in which people look; nothing where the images are the same."""
    if a.config_digest == b.config_digest:
        return []
    return [
        *_each("", {"platform": platform(a)}, {"platform": platform(b)}),
        *_each("model ", _models(a), _models(b)),
        *_each("", _run(a), _run(b)),
        *_each("label ", _labels(a), _labels(b)),
        *_layers(a, b),
    ]


def to_fetch(a: Image, b: Image) -> int:
    """The bytes of the layers that who has `a` lacks of `b`."""
    there = {layer.digest for layer in a.layers}
    return sum({layer.digest: layer.size for layer in b.layers if layer.digest not in there}.values())


def locks(a: Lock, b: Lock) -> list[Difference]:
    """The files of the models, and where they come from."""
    return list(_each("", _files(a), _files(b)))


def _each(kind: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            yield Difference(f"{kind}{name}", a.get(name), b.get(name))


def _models(image: Image) -> dict[str, str]:
    return {path: f"sha256 {sha256}" for path, sha256 in image.models().items()}


def _labels(image: Image) -> dict[str, str]:
    return {name: value for name, value in image.labels.items() if name != MODELS_LABEL}


def _run(image: Image) -> dict[str, str]:
    """How the image is run; of the environment each variable for itself."""
    found = {
        name.lower(): json.dumps(value, ensure_ascii=False)
        for name, value in image.run.items()
        if name not in ("Env", "Labels")
    }
    for entry in image.run.get("Env") or ():
        name, _, value = str(entry).partition("=")
        found[f"variable {name}"] = value
    return found


def _layers(a: Image, b: Image) -> Iterator[Difference]:
    """Layers that only one side has; models were compared before, by what they are."""
    orders = [[layer.digest for layer in image.layers] for image in (a, b)]
    for image, others in ((a, orders[1]), (b, orders[0])):
        for layer in {each.digest: each for each in image.layers}.values():
            if not layer.model and layer.digest not in others:
                said = f"{layer.digest[7:19]} {size(layer.size)}, {layer.contents}"
                yield Difference("layer", *((said, None) if image is a else (None, said)))
    if sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]:
        yield Difference("order of the layers", *(" ".join(digest[7:19] for digest in order) for order in orders))


def _files(lock: Lock) -> dict[str, str]:
    found = {}
    for entry in lock.entries.values():
        origin = f"{entry.origin.kind} {entry.origin.repository or ''} {entry.origin.revision or ''}".strip()
        for path, pin in entry.files:
            found[f"{entry.name} {path}"] = f"sha256 {pin.sha256}, {pin.size} bytes, {origin}, from {entry.source}"
    return found
