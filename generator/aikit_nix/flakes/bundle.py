"""All that a flake's build needs, in one folder: a plain Nix binary cache, the flake, and an index of what there is.

The cache is written and read by Nix alone (`nix copy`), which checks each path's hash and shows it in a store only when
it is whole. The index adds what Nix does not say: what each path is, and under which licence.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from aikit_nix import __version__
from aikit_nix.base import console, files, process
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.redact import shown
from aikit_nix.debian import mirror
from aikit_nix.flakes import materials
from aikit_nix.flakes.materials import Recipe
from aikit_nix.nix import command as nix
from aikit_nix.nix import store

VERSION = 1
INDEX = "bundle.json"
FLAKE = "flake"
_CACHE = "nix-cache-info"  # what Nix writes first into a binary cache: a bundle that was killed has it
_SCRATCH = ".aikit-nix-bundle"
MAX_BYTES = 256 << 20
STORE_PATH = re.compile(r"/nix/store/([0-9a-z]{32})-[0-9A-Za-z+._?=-]{1,211}")


class Kind(StrEnum):
    """What a store path is."""

    MODEL = "model"
    DEB = "debian package"
    SOURCE = "source"
    INPUT = "flake input"
    BUILT = "built"


@dataclass(frozen=True)
class Item:
    """One store path: its NAR's hash (`sha256:` and Nix' base 32) and size in bytes; `license` as its origin says it.

    `narInfo` is the SHA-256 (hex) of what the cache says of it, without signatures: they may be added later.
    """

    path: str
    kind: Kind
    narHash: str  # noqa: N815 (a JSON name)
    narSize: int  # noqa: N815 (a JSON name)
    license: str | None = None
    narInfo: str = ""  # noqa: N815 (a JSON name)

    @property
    def name(self) -> str:
        """The store path's name, without its hash."""
        return self.path[len("/nix/store/") + 33 :]

    @property
    def narinfo(self) -> str:
        """The file of a binary cache that describes it."""
        return self.path[len("/nix/store/") :][:32] + ".narinfo"


@dataclass(frozen=True)
class Index:
    """What a bundle holds. `flake` are the files of the flake's folder, with their SHA-256 in hex."""

    image: str
    system: str
    paths: tuple[Item, ...]
    flake: Mapping[str, str]

    def to_json(self) -> bytes:
        own = {"formatVersion": VERSION, "generator": f"aikit-nix {__version__}", **asdict(self)}
        return (json.dumps(own, indent=2) + "\n").encode()


# --- What there is to bundle


def collect(found: Recipe, system: str, *, built: bool) -> list[Item]:
    """All that the build of a system's default image needs, brought into the store if it is not there. Raises AikitError.

    With `built` the image is built first, but for its models' bytes, and what that took and made is in the list: then
    sources that nothing was built from here are not.
    """
    reference = nix.flake_reference(found.folder)
    inputs = nix.inputs(reference)
    image = nix.evaluate(reference, f"packages.{system}.default.drvPath")
    outside = nix.fixed_outputs(image)
    models = {str(store.store_path(each.file.name, each.file.sha256)): each for each in found.models}
    made: list[str] = []
    if built:
        manifest = nix.evaluate(reference, f"packages.{system}.manifest.drvPath")
        process.run(["nix-store", "--realise", manifest], env=mirror.build_environment())
        made = _built(manifest, outside)
        outside = {path: outside[path] for path in outside if path in models} | {
            path: outside[path] for path in set(outside) - set(nix.invalid(outside))
        }
    _bring(outside, models)
    debs = {
        str(store.store_path(_deb_name(package.filename), package.sha256)): package
        for package in [*found.debs(system), *found.tools()]
    }

    def origin(path: str) -> tuple[Kind, str | None]:
        if model := models.get(path):
            return Kind.MODEL, model.origin.license if model.origin else None
        if deb := debs.get(path):
            return Kind.DEB, f"Debian {deb.filename.split('/')[1]}: usr/share/doc/{deb.name}/copyright"
        if path in inputs:
            return Kind.INPUT, None
        return (Kind.SOURCE if path in outside else Kind.BUILT), None

    paths = sorted({*outside, *inputs, *made})
    return [
        Item(path, kind, *said, terms)
        for path, said in zip(paths, nix.sizes(paths), strict=True)
        for kind, terms in [origin(path)]
    ]


def _deb_name(filename: str) -> str:
    return re.sub("[~:%]", "-", filename.rpartition("/")[2])


def _bring(outside: Mapping[str, str], models: Mapping[str, materials.Model]) -> None:
    missing = nix.invalid(outside)
    if lacking := [models[path] for path in missing if path in models and not models[path].file.url]:
        raise AikitError(
            *(
                Diagnostic(
                    Severity.ERROR,
                    "model-missing",
                    f"{each.path} is not in the Nix store: bring it there with `aikit-nix fetch`",
                )
                for each in lacking
            )
        )
    for some in nix.chunks([outside[path] for path in missing]):
        process.run(["nix-store", "--realise", *some], env=mirror.build_environment())


def _built(derivation: str, outside: Mapping[str, str]) -> list[str]:
    """What was built for a derivation and is in the store, with all that it refers to."""
    listed = process.run(["nix-store", "--query", "--requisites", "--include-outputs", derivation]).split()
    layers = nix.model_layers(derivation)
    return [path for path in listed if not path.endswith(".drv") and path not in outside and path not in layers]


# --- Writing


def write(
    found: Recipe, system: str, folder: Path, *, built: bool, key: Path | None = None, lock_path: Path | None = None
) -> tuple[Index, int]:
    """Fill a folder; what it has already is left as it is. The index and the bytes that were copied. Raises AikitError."""
    cache = f"file://{plain(folder)}"
    if key and not key.is_file():
        raise error(f"--key {key}: there is no such file (make one with `nix key generate-secret`)")
    if (folder / FLAKE).exists() and not any((folder / name).exists() for name in (INDEX, _CACHE)):
        raise error(f"{folder} has a `{FLAKE}` that is of no bundle, and would be replaced: name another folder")
    files.make_folder(folder)
    scratch = folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        digests = _copy_flake(found, scratch / FLAKE)
        # From here on the copy counts: whatever it lacks is noticed now, not on a machine without network
        items = collect(materials.read(scratch / FLAKE, lock_path or _lock_of(found)), system, built=built)
        if (scratch / FLAKE / "flake.lock").exists() and "flake.lock" not in digests:
            raise error(f"{found.folder}/flake.lock is not there: pin the inputs with `nix flake lock` and commit it")
        new = [item for item in items if not (folder / item.narinfo).exists()]
        copied = sum(item.narSize for item in new)
        console.say(f"copying {len(new)} of {len(items)} store paths, {console.size(copied)}", err=True)
        copy(items, cache, scratch=scratch, key=key)
        items = [replace(item, narInfo=described(folder / item.narinfo)) for item in items]
        index = Index(found.reference(system), system, tuple(items), digests)
        _exchange(scratch / FLAKE, folder / FLAKE)
        files.write_atomic(folder / INDEX, index.to_json())
    except OSError as failed:
        raise files.cannot_write(failed.filename or folder, failed) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return index, copied


def copy(items: Sequence[Item], url: str, *, scratch: Path | None = None, key: Path | None = None) -> None:
    """Nix's own copy of some store paths to a binary cache or another store. Raises AikitError.

    Models, .debs and archives of sources do not compress. `scratch` is a folder on the same disk: Nix writes a NAR to a
    temporary file first, and /tmp may be small.
    """
    # One that is no cache keeps signatures in its database, which come along from ours
    is_cache = url.startswith(("file://", "s3://", "http://", "https://"))
    env = {"TMPDIR": str(scratch)} if scratch else {}
    if key and not is_cache:
        _sign(items, key, [])
    for raw in (True, False):
        paths = [item.path for item in items if (item.kind in (Kind.MODEL, Kind.DEB, Kind.SOURCE)) is raw]
        compression = "none" if raw else "zstd"
        to = url + ("&" if "?" in url else "?") + f"compression={compression}" if is_cache else url
        for some in nix.chunks(paths):
            # Ours, which nobody else has signed; the other side checks what it wants to
            nix.run("copy", "--no-check-sigs", "--to", to, *some, env=env)
    if key and is_cache:
        _sign(items, key, ["--store", url])


def _sign(items: Sequence[Item], key: Path, where: Sequence[str]) -> None:
    for some in nix.chunks([item.path for item in items]):
        nix.run("store", "sign", *where, "--key-file", key, *some)


def plain(folder: Path) -> Path:
    """The folder, as Nix takes it in a store's address. Raises AikitError where it does not."""
    whole = folder.resolve()
    if re.search(r"[?%#&\s]", str(whole)):
        raise error(
            f"{shown(str(whole))} has blanks or one of ? % # & in it, which Nix does not take: use another folder"
        )
    return whole


def _copy_flake(found: Recipe, to: Path) -> dict[str, str]:
    """The files of a flake that its build reads, copied; their SHA-256."""
    inside = [each.path for each in found.plan.sources if is_inside(each.path)]
    for name in [*found.inputs, *inside]:
        if (found.folder / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.folder / name, to / name)
    return _digests(to)


def is_inside(name: str) -> bool:
    """Whether the name of a file stays below its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _lock_of(found: Recipe) -> Path | None:
    """aikit.lock, where it was found: it says where models come from."""
    return next((path for path in materials.lock_places(found.folder) if path.exists()), None)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _exchange(new: Path, old: Path) -> None:
    if old.exists():
        old.rename(new.with_name("before"))
    new.rename(old)


def described(narinfo: Path) -> str:
    """The SHA-256 (hex) of what a cache says of a store path, without signatures. Raises AikitError."""
    lines = files.read_bounded(narinfo, 1 << 20).splitlines(keepends=True)
    return hashlib.sha256(b"".join(line for line in lines if not line.startswith(b"Sig:"))).hexdigest()


# --- Showing


def table(items: Sequence[Item]) -> Iterator[str]:
    """How much there is of what, and which licences travel with it."""
    for kind in Kind:
        if some := [item for item in items if item.kind is kind]:
            yield f"{kind.value:15} {len(some):6} {console.size(sum(item.narSize for item in some)):>10}"
    yield f"{'together':15} {len(items):6} {console.size(sum(item.narSize for item in items)):>10}"
    for text, count in sorted(Counter(map(_license, items)).items()):
        if text:
            yield f"licence: {text}" + (f" ({count})" if count > 1 else "")


def _license(item: Item) -> str:
    if item.kind is Kind.MODEL:
        return f"{item.license or 'not known, ask its author'}, {item.name}"
    area = (item.license or "").partition(":")[0]
    return f"{area}, in each package usr/share/doc/*/copyright" if area else ""
