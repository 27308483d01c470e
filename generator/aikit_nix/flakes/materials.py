"""What an image is made of, as a generated flake and aikit.lock say it: plan, models with their origins, programs.

Nothing is built or asked for. Bills of materials, provenance and `verify` are views of this.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import quote

from msgspec import Struct, field

from aikit_nix.aikitfile.types import Pin
from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.base.typed_json import Sri
from aikit_nix.debian import lock as debian
from aikit_nix.debian.index import Package
from aikit_nix.flakes.folder import own_files
from aikit_nix.flakes.plan import FORMAT_VERSION, Engine, ModelFile, Packages, Plan
from aikit_nix.flakes.write import DEBIAN_LOCK, PLAN, FlakeLock, Node
from aikit_nix.models import lock, seen
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock
from aikit_nix.nix import store
from aikit_nix.sources.gguf import Facts

T = TypeVar("T")

_PINS = "aikit/pins.json"
_WHEELS = "aikit/engines/localai/exllama2/wheels.json"
_FLAKE_LOCK = "flake.lock"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class ModelMaterial:
    """A model file of the plan, and what the lock knows of it: BLAKE3, and where it comes from.

    `seen` is whether its bytes were on this machine, so that what is said of them is no claim of the lock's alone.
    """

    file: ModelFile
    blake3: str | None
    origin: Origin | None
    url: str | None
    facts: Facts | None = None
    seen: bool = True

    @property
    def claim(self) -> tuple[str, Pin]:
        """What flake and lock claim of its bytes, under its path in the image."""
        return self.path, Pin(self.file.sha256, self.file.size, self.blake3, self.file.layer)

    @property
    def path(self) -> str:
        """Where it lies in the image."""
        return self.file.path

    @property
    def store_file(self) -> Path:
        """Where this machine's Nix store keeps it, if it does."""
        return store.store_path(self.file.name, self.file.sha256)


@dataclass(frozen=True)
class Source:
    """The source of a program that nixpkgs compiles.

    `sha256` (hex) is that of the file where `is_file`, else that of the unpacked tree as a NAR; `date` (ISO 8601) is the
    release's, where it is known.
    """

    name: str
    version: str
    purl: str | None
    sha256: str
    date: str | None = None
    is_file: bool = False


@dataclass(frozen=True)
class Materials:
    """What a flake's folder and the lock say. `inputs` are the SHA-256 (hex) of the files that decide what is built.

    `lock_file` is where aikit.lock was found, `lock_digest` its SHA-256 (hex): None where there is none.
    """

    folder: Path
    plan: Plan
    models: tuple[ModelMaterial, ...]
    inputs: Mapping[str, str]
    lock_file: Path | None
    lock_digest: str | None
    debian_lock: debian.DebianLock | None
    pinned: tuple[Source, ...]
    nixpkgs: Source | None
    # What the lock says otherwise than the plan, for people: it is newer, perhaps
    disagreements: tuple[str, ...] = ()

    @property
    def aikitfile_digest(self) -> str | None:
        """The SHA-256 (hex) of the aikitfile that the plan was made from; None where that file is not here to be read."""
        said = self.plan.image.labels.get("aikit-nix.aikitfile", "").removeprefix("sha256:")
        names = [each.path for each in self.plan.sources] + ["aikitfile.yaml", "../aikitfile.yaml"]
        for file in (self.folder / name for name in names):
            if file.is_file() and hashlib.sha256(files.read_bounded(file, _MAX_BYTES)).hexdigest() == said:
                return said
        return None

    def system(self, wanted: str | None = None) -> str:
        """The system whose image is meant: the wanted one, else this machine's, else the first. Raises AikitError."""
        systems = sorted(self.plan.systems)
        if wanted and wanted not in systems:
            raise error(f"{self.folder / PLAN} has no image for {wanted}: it has {', '.join(systems)}")
        own = f"{platform.machine()}-linux"
        return wanted or (own if own in systems else systems[0])

    def runtime(self, system: str) -> str:
        """The runtime of a system's default image."""
        return self.plan.systems[system].default

    def reference(self, system: str) -> str:
        """NAME:TAG of a system's default image."""
        return f"{self.plan.image.name}:{self.plan.image.tag or self.runtime(system)}"

    def compared(self, *, unseen: bool, witnessed: Set[str] = frozenset()) -> Materials:
        """These, whose claims were compared with the bytes of models; claims of those never seen here have to be allowed, or
        `witnessed` elsewhere (their paths in the image). Of what nothing is claimed Nix derives it in the build.

        Raises AikitError.
        """
        missing = seen.check((model.claim for model in self.models), str(self.folder))
        claimed = {model.path for model in self.models if model.file.layer or model.blake3} - witnessed
        if not unseen and (unknown := [path for path in missing if path in claimed]):
            raise error(
                f"the bytes of {unknown[0]} were never seen on this machine, and the digest of its layer is what"
                f" {self.folder} claims: bring them with `aikit-nix fetch`, name a --witness, or let it be said of them"
                " that they are --unseen",
                code="unseen",
            )
        return replace(self, models=tuple(replace(each, seen=each.path not in missing) for each in self.models))

    def debs(self, system: str) -> list[Package]:
        """The .debs that a system's default image is made from, sorted by name. Raises AikitError."""
        if self.plan.packages is not Packages.DEBIAN:
            return []
        return sorted(self._debian.architectures[ARCHITECTURES[system]].image(self.runtime(system)), key=_by_name)

    def tools(self) -> list[Package]:
        """The .debs whose programs put the image together, sorted by name. Raises AikitError."""
        if self.plan.packages is not Packages.DEBIAN:
            return []
        return sorted(self._debian.architectures[ARCHITECTURES[debian.BUILDER]].builders(), key=_by_name)

    def deb_url(self, package: Package) -> str:
        """Where a .deb is for good."""
        return f"{debian.SNAPSHOT}/{self._debian.snapshot}/{package.filename}"

    @property
    def _debian(self) -> debian.DebianLock:
        if self.debian_lock is None:
            raise self._elsewhere()
        return self.debian_lock

    def _elsewhere(self) -> AikitError:
        return error(
            f"{self.folder} takes its Nix files from a flake input, and the pins of the programs are there: write the flake "
            "without --input",
            code="elsewhere",
        )

    @property
    def debian_suite(self) -> str:
        """Debian's name of the suite that the .debs are from."""
        return self.debian_lock.suite if self.debian_lock else ""

    def sources(self) -> list[Source]:
        """nixpkgs, and what is pinned beside it: LocalAI and its backends. Raises AikitError."""
        if self.plan.engine is Engine.LOCALAI and not self.pinned:
            raise self._elsewhere()
        return [*([self.nixpkgs] if self.nixpkgs else []), *self.pinned]


class _Pin(Struct, frozen=True):
    """An entry of pins.json, as far as it is asked for here."""

    hash: Sri
    tag: str = ""
    rev: str = ""
    date: str | None = None


class _Pins(Struct, frozen=True, kw_only=True):
    localai: _Pin
    llama: _Pin = field(name="llama-cpp")
    stablediffusion: _Pin
    ggml: _Pin = field(name="stablediffusion-ggml")


def _pinned(plan: Plan, content: bytes) -> tuple[Source, ...]:
    """Of pins.json what the plan's engine is compiled from."""
    if plan.engine is not Engine.LOCALAI:
        return ()
    pins = typed_json.decode(content, _Pins)
    compiled = [("LocalAI", "mudler/LocalAI", pins.localai), ("llama.cpp", "ggml-org/llama.cpp", pins.llama)]
    if "stablediffusion" in plan.backends:
        compiled.append(("stable-diffusion.cpp", "leejet/stable-diffusion.cpp", pins.stablediffusion))
        compiled.append(("ggml", "leejet/ggml", pins.ggml))
    return tuple(
        Source(name, pin.tag or pin.rev, f"pkg:github/{repository}@{pin.tag or pin.rev}", _hex(pin.hash), date=pin.date)
        for name, repository, pin in compiled
    )


class _Wheel(Struct, frozen=True):
    url: Annotated[str, typed_json.form(r".*/[\w.]+-[\w.]+-[^/]*\.whl", "no wheel's address")]
    hash: Sri


def _wheels(content: bytes) -> tuple[Source, ...]:
    """The Python packages of the backend exllama2: a wheel's version is in the name of its file."""
    versions = {
        name: (wheel.url.rpartition("/")[2].split("-")[1], _hex(wheel.hash))
        for name, wheel in typed_json.decode(content, dict[str, _Wheel]).items()
    }
    return tuple(
        Source(name, version, f"pkg:pypi/{name}@{version}", sha256, is_file=True)
        for name, (version, sha256) in versions.items()
    )


def _nixpkgs(content: bytes) -> Source | None:
    """nixpkgs as flake.lock has it, of whatever type: a revision on GitHub has a purl."""
    lock = typed_json.decode(content, FlakeLock)
    node = lock.nodes.get(lock.root, Node()).inputs.get("nixpkgs")
    if node is None:
        return None
    locked = typed_json.convert(lock.nodes.get(str(node), Node()).locked, _Locked)
    purl = None
    if locked.type == "github":
        owner, name, commit = (quote(each, safe="") for each in (locked.owner, locked.repo, locked.rev))
        purl = f"pkg:github/{owner}/{name}@{commit}"
    return Source("nixpkgs", locked.rev, purl, _hex(locked.nar_hash))


class _Locked(Struct, rename="camel", kw_only=True):
    type: str = ""
    owner: str = ""
    repo: str = ""
    rev: str = ""
    nar_hash: Sri


def _hex(text: Sri) -> str:
    """The hex digits of Nix' way to write a SHA-256: `sha256-` and base64."""
    return base64.b64decode(text.removeprefix("sha256-")).hex()


def read_if_there(folder: Path, lock_path: Path | None = None) -> Materials | None:
    """The materials in a folder; None where it holds no flake. Raises AikitError."""
    return read(folder, lock_path) if (folder / PLAN).exists() else None


def architecture(materials: Materials | None = None, system: str | None = None) -> str:
    """OCI's name of the architecture whose image is meant: of a system, of the materials, else this machine's."""
    name = materials.system(system) if materials else system or f"{platform.machine()}-linux"
    return ARCHITECTURES.get(name, name)


def read(folder: Path, lock_path: Path | None = None) -> Materials:
    """The materials in a flake's folder, with the lock at `lock_path`; else the one that the flake was made from, or where it
    does not say that, aikit.lock there or in the folder above. Raises AikitError.
    """
    plan = _parsed(folder / PLAN, _plan)
    if plan is None:
        is_layout = (folder / "oci-layout").is_file()
        what = "is an OCI layout, and no flake" if is_layout else "holds no flake of aikit-nix"
        what = what if folder.exists() else "is not there"
        raise error(f"{folder} {what}: run `aikit-nix gen`, or name the flake's folder with --flake")
    # No other that lies nearer: nobody compared that with the aikitfile
    there = folder.resolve()
    # (an aikitfile that is a link to somewhere else is not named there, its lock is)
    named = plan.sources[1:] or [each for each in plan.sources if each.path.endswith(".lock")]
    made_from = [Path(os.path.normpath(there / each.path)) for each in named]
    places = made_from if plan.sources else [folder / lock.NAME, there.parent / lock.NAME]
    path = lock_path or next((place for place in places if place.exists()), None)
    found = lock.read(path) if path else None
    if lock_path and found is None:
        raise error(f"{lock_path} is not there: write it with `aikit-nix lock`", code="lock")
    known = _known(found)
    locked = dict(found.files()) if found else {}
    return Materials(
        folder,
        plan,
        tuple(_model(file, *known.get((file.path, file.sha256), (None, None))) for file in plan.models),
        {name: hashlib.sha256(content).hexdigest() for name, content in own_files(folder)},
        path,
        hashlib.sha256(path.read_bytes()).hexdigest() if path and found else None,
        debian.DebianLock.read(folder / DEBIAN_LOCK) if (folder / DEBIAN_LOCK).exists() else None,
        (
            *(_parsed(folder / _PINS, partial(_pinned, plan)) or ()),
            *(_parsed(folder / _WHEELS, _wheels) or ()),
        ),
        _parsed(folder / _FLAKE_LOCK, _nixpkgs),
        tuple(
            f"{file.path}: {path} has the sha256 {pin.sha256}, and the flake {file.sha256}: run `aikit-nix gen`"
            for file in plan.models
            if (pin := locked.get(file.path)) and pin.sha256 != file.sha256
        ),
    )


def _parsed(path: Path, parse: Callable[[bytes], T]) -> T | None:
    """What a file says; None where it is not there."""
    if not path.exists():
        return None
    with typed_json.refusing(f"{path} is not what aikit-nix writes", "run `aikit-nix gen` again"):
        return parse(files.read_bounded(path, _MAX_BYTES))


def _plan(content: bytes) -> Plan:
    plan = typed_json.versioned(typed_json.parse(content), Plan, FORMAT_VERSION)
    systems = {name: each for name, each in plan.systems.items() if name in ARCHITECTURES}
    if not systems:
        raise ValueError("it is for no system")
    return replace(plan, systems=systems)


def _by_name(package: Package) -> str:
    return package.name


def _known(found: Lock | None) -> dict[tuple[str, str], tuple[Entry | None, Pin | None]]:
    return {
        (path, pin.sha256): (entry, pin)
        for entry in (found.entries.values() if found else ())
        for path, pin in entry.files
    }


def _model(file: ModelFile, entry: Entry | None, pin: Pin | None) -> ModelMaterial:
    if entry is None or pin is None:
        return ModelMaterial(file, None, None, file.url)
    return ModelMaterial(file, pin.blake3, entry.origin, pin.url or file.url, pin.gguf)
