"""Two builders, one digest: what an image was built from and what came out, small enough to send to somebody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from aikit_nix import __version__
from aikit_nix.attest import envelope, verdict
from aikit_nix.attest.envelope import Statement
from aikit_nix.base import process, typed_json
from aikit_nix.base.errors import error
from aikit_nix.flakes import folder as folders
from aikit_nix.flakes import inputs
from aikit_nix.flakes.materials import Materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.image import layout
from aikit_nix.image.layout import Image
from aikit_nix.nix import command as nix

VERSION = 1


def built(materials: Materials, system: str) -> Image:
    """A system's default image, built without its models' bytes (`.#manifest`). Raises AikitError."""
    return layout.read_layout(inputs.build(materials.folder, f"packages.{system}.manifest"))


def build_again(materials: Materials, system: str) -> int:
    """Build a second time what made the image, and let Nix compare; the number of derivations.

    With Debian's packages that is everything; with nixpkgs the engine and the image, not the compilers below them. Raises
    AikitError with what came out otherwise.
    """
    with folders.staged(materials.folder) as flake:
        manifest = nix.evaluate(flake, f"packages.{system}.manifest.drvPath")
        if materials.plan.packages is Packages.DEBIAN:
            wanted = nix.built_here(manifest)
        else:
            wanted = [nix.evaluate(flake, f"packages.{system}.engine.drvPath"), manifest]
    process.run(["nix-store", "--realise", *wanted])
    process.run(["nix-store", "--realise", "--check", "--keep-going", *wanted])
    return len(wanted)


def statement(materials: Materials, system: str, image: Image) -> dict[str, Any]:
    """What one builder says: the predicate of a rebuild."""
    return {
        "formatVersion": VERSION,
        "generator": f"aikit-nix {__version__}",
        "nix": nix.version(),
        "system": system,
        **verdict.about(materials, system),
        "inputs": _inputs(materials),
        # Models whose bytes this builder never had: the digests of their layers are the lock's word
        "unseen": [model.path for model in materials.models if not model.seen],
        "image": {
            "name": materials.reference(system),
            "manifest": image.digest,
            "configuration": image.config_digest,
            "layers": [{"digest": layer.digest, "created_by": layer.created_by} for layer in image.layers],
        },
    }


def _inputs(materials: Materials) -> dict[str, str]:
    return {**materials.inputs, **({"aikit.lock": materials.lock_digest} if materials.lock_digest else {})}


def compared(materials: Materials, witnesses: Iterable[tuple[Path, Path]], *, unseen: bool) -> Materials:
    """Materials whose claims were compared with models' bytes: here, or by witnesses (a statement and its signer's key).

    A rebuild of the same flake and lock makes the same claims, and its builder had the models but those that it calls
    unseen. Raises AikitError.
    """
    witnessed: set[str] = set()
    for file, key in witnesses:
        said = read(file)
        if not said.is_signed_by(envelope.public_key(key)):
            raise error(f"{file} is not signed with the key that {key} is the public half of", code="witness")
        if said.predicate["inputs"] != _inputs(materials):
            raise error(f"{file} is of another flake or lock than {materials.folder}", code="witness")
        witnessed |= {model.path for model in materials.models if model.path not in said.predicate["unseen"]}
    return materials.compared(unseen=unseen, witnessed=witnessed)


def read(path: Path) -> Statement:
    """Another builder's statement. Raises AikitError."""
    statement = envelope.read(path)
    wrong = f"{path} is no statement of `aikit-nix reproduce`: it is of another type"
    with typed_json.refusing(wrong, code="statement"):
        if statement.predicate_type != verdict.REBUILD:
            raise ValueError(statement.predicate_type)
        typed_json.versioned(statement.predicate, _Rebuild, VERSION)
    return statement


class _Layer(Struct):
    digest: str


class _Image(Struct):
    layers: tuple[_Layer, ...]


class _Rebuild(Struct):
    inputs: Mapping[str, Any]
    unseen: tuple[str, ...]
    image: _Image


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """What two builders do not agree on; the versions of their Nix may differ. Inputs first: they are why."""
    if ours["system"] != theirs.get("system"):
        yield f"the system: {ours['system']} here, {theirs.get('system')} there"
    yield from _unlike("the input", ours["inputs"], theirs["inputs"])
    here, there = ours["image"], theirs["image"]
    yield from _unlike(
        "the layer",
        {str(index): layer["digest"] for index, layer in enumerate(here["layers"], 1)},
        {str(index): layer["digest"] for index, layer in enumerate(there["layers"], 1)},
    )
    for what in ("configuration", "manifest"):
        if here[what] != there.get(what):
            yield f"the {what}: {here[what]} here, {there.get(what)} there"


def _unlike(what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if ours.get(name) != theirs.get(name):
            yield f"{what} {name}: {ours.get(name, 'none')} here, {theirs.get(name, 'none')} there"
