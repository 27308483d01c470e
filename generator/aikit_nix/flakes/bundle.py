"""All that a flake's build needs, in one folder: a plain Nix binary cache, the flake, and an index of what there is.

The cache is written and read by Nix alone (`nix copy`), which checks each path's hash and shows it in a store only when
it is whole. The index adds what Nix does not say: what each path is, and under which licence. It names every file of the
bundle with its hash, and is what a key signs.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from aikit_nix import __version__
from aikit_nix.base import console, files, process, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.redact import shown
from aikit_nix.base.typed_json import Sha256, Size, form
from aikit_nix.flakes import folder as folders
from aikit_nix.flakes import inputs as flake_inputs
from aikit_nix.flakes import materials
from aikit_nix.flakes.materials import Materials
from aikit_nix.nix import command as nix
from aikit_nix.nix import keys, store
from aikit_nix.sources.names import unprintable

VERSION = 2
INDEX = "bundle.json"
SIGNATURE = "bundle.json.sig"  # one line, `NAME:BASE64`: a key of Nix signs the bytes of the index
FLAKE = "flake"
CACHE = "nix-cache-info"  # what Nix writes first into a binary cache: a bundle that was killed has it
_SCRATCH = ".aikit-nix-bundle"
MAX_BYTES = 64 << 20
NARINFO_BYTES = 1 << 20
STORE_PATH = re.compile(r"/nix/store/([0-9a-z]{32})-[0-9A-Za-z+._?=-]{1,211}")


class PathKind(StrEnum):
    """What a store path is."""

    MODEL = "model"
    DEB = "debian package"
    SOURCE = "source"
    INPUT = "flake input"
    BUILT = "built"


class Item(Struct, frozen=True, rename="camel"):
    """One store path: its NAR's hash (`sha256:` and Nix' base 32) and size in bytes; `license` as its origin says it."""

    path: Annotated[str, form(STORE_PATH.pattern, "no store path")]
    kind: PathKind
    nar_hash: str
    nar_size: Size
    license: str | None = None

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
    """What a bundle holds. `files` are all its files but itself and its signature, with their SHA-256 in hex."""

    image: str
    system: str
    paths: tuple[Item, ...]
    files: Mapping[str, Sha256]

    def to_json(self) -> bytes:
        own = {"formatVersion": VERSION, "generator": f"aikit-nix {__version__}", **vars(self)}
        return typed_json.encode(own, ascii_only=True).encode()


# --- What there is to bundle


def collect(found: Materials, system: str, *, built: bool) -> list[Item]:
    """All that the build of a system's default image needs, brought into the store if it is not there. Raises AikitError.

    With `built` the image is built first, but for its models' bytes, and what that took and made is in the list: then
    sources that nothing was built from here are not.
    """
    with folders.staged(found.folder) as flake:
        inputs = nix.inputs(flake)
        outside = nix.fixed_outputs(nix.evaluate(flake, f"packages.{system}.default.drvPath"))
        manifest = nix.evaluate(flake, f"packages.{system}.manifest.drvPath") if built else ""
    models = {str(each.store_file): each for each in found.models}
    made: list[str] = []
    if built:
        _bring(found.folder, {path: each for path, each in outside.items() if path not in models}, {})
        process.run(["nix-store", "--realise", manifest])
        made = _built(manifest, outside)
        absent = set(nix.invalid(outside)) - models.keys()
        outside = {path: derivation for path, derivation in outside.items() if path not in absent}
    _bring(found.folder, outside, models)
    debs = {str(package.store_path): package for package in [*found.debs(system), *found.tools()]}

    def origin(path: str) -> tuple[PathKind, str | None]:
        if model := models.get(path):
            return PathKind.MODEL, model.origin.license if model.origin else None
        if deb := debs.get(path):
            return PathKind.DEB, f"Debian {deb.component}: usr/share/doc/{deb.name}/copyright"
        if path in inputs:
            return PathKind.INPUT, None
        return (PathKind.SOURCE if path in outside else PathKind.BUILT), None

    paths = sorted({*outside, *inputs, *made})
    return [
        Item(path, kind, *said, terms)
        for path, said in zip(paths, nix.sizes(paths), strict=True)
        for kind, terms in [origin(path)]
    ]


def _bring(folder: Path, outside: Mapping[str, str], models: Mapping[str, materials.ModelMaterial]) -> None:
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
    flake_inputs.realise(folder, outside)


def _built(derivation: str, outside: Mapping[str, str]) -> list[str]:
    """What was built for a derivation and is in the store, with all that it refers to."""
    listed = process.run(["nix-store", "--query", "--requisites", "--include-outputs", derivation]).split()
    layers = nix.model_layers(derivation)
    return [path for path in listed if not path.endswith(".drv") and path not in outside and path not in layers]


# --- Writing


def write(found: Materials, system: str, folder: Path, *, built: bool, key: Path | None = None) -> tuple[Index, int]:
    """Fill a folder; what it has already is left as it is. The index and the bytes that were copied. Raises AikitError."""
    cache = f"file://{plain(folder)}"
    if key and not key.is_file():
        raise error(f"--key {key}: there is no such file (make one with `nix key generate-secret`)")
    if (folder / FLAKE).exists() and not any((folder / name).exists() for name in (INDEX, CACHE)):
        raise error(f"{folder} has a `{FLAKE}` that is of no bundle, and would be replaced: name another folder")
    files.make_folder(folder)
    try:
        with files.alone(folder):
            return _fill(found, system, folder, cache, built=built, key=key)
    except OSError as failed:
        raise files.cannot_write(failed.filename or folder, failed) from None
    finally:
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)


def _fill(
    found: Materials, system: str, folder: Path, cache: str, *, built: bool, key: Path | None
) -> tuple[Index, int]:
    scratch = folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    folders.refuse_stale(found.folder)
    digests = folders.copy(found.folder, scratch / FLAKE)
    own = {f"{FLAKE}/{name}": digest for name, digest in digests.items()}
    # From here on the copy counts: whatever it lacks is noticed now, not on a machine without network
    items = collect(materials.read(scratch / FLAKE, found.lock_file), system, built=built)
    if (scratch / FLAKE / "flake.lock").exists() and "flake/flake.lock" not in own:
        raise error(f"{found.folder}/flake.lock is not there: pin the inputs with `nix flake lock` and commit it")
    new = [item for item in items if not _has(folder, item)]
    for item in new:
        (folder / item.narinfo).unlink(missing_ok=True)
    copied = sum(item.nar_size for item in new)
    console.say(f"copying {len(new)} of {len(items)} store paths, {console.size(copied)}", err=True)
    copy(items, cache, scratch=scratch, key=key)
    index = Index(found.reference(system), system, tuple(items), dict(_cached(folder, items)) | own)
    (folder / SIGNATURE).unlink(missing_ok=True)
    _exchange(scratch / FLAKE, folder / FLAKE)
    files.write_atomic(folder / INDEX, index.to_json())
    if key:
        sign_index(folder, key)
    return index, copied


def _has(folder: Path, item: Item) -> bool:
    """Whether the cache has a store path, as our store has it: what else it says under that name is not for us to sign."""
    try:
        said = narinfo(files.read_bounded(folder / item.narinfo, NARINFO_BYTES))
    except (AikitError, ValueError):
        return False
    return (said["StorePath"], said["NarHash"], said["NarSize"]) == (item.path, item.nar_hash, str(item.nar_size))


def _cached(folder: Path, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """The files of a cache that some store paths are in, with their SHA-256."""
    for name in (CACHE, *(item.narinfo for item in items)):
        content = files.read_bounded(folder / name, NARINFO_BYTES)
        yield name, hashlib.sha256(content).hexdigest()
        if name != CACHE:
            said = narinfo(content)
            yield said["URL"], store.from_base32(said["FileHash"].removeprefix("sha256:")).hex()


def narinfo(content: bytes) -> dict[str, str]:
    """What a binary cache says of a store path; `Sig` has the signatures, one a line. Raises ValueError.

    Source: the Nix manual, and NarInfo's parser: a field that stands twice is refused, as readers differ on it.
    """
    said: dict[str, str] = {"CA": "", "Sig": ""}
    for line in content.decode().splitlines():
        field, colon, value = line.partition(": ")
        if not colon or (said.get(field) and field != "Sig"):
            raise ValueError(f"{shown(line)!r} makes no sense there")
        said[field] = f"{said[field]}\n{value}".strip() if field == "Sig" else value
    if lacks := {"StorePath", "URL", "FileHash", "FileSize", "NarHash", "NarSize", "References"} - said.keys():
        raise ValueError(f"it lacks {min(lacks)}")
    if not re.fullmatch(r"nar/[0-9a-z]+\.nar(\.[0-9a-z]+)?", said["URL"]):
        raise ValueError(f"URL {said['URL']!r}")
    return said


def sign_index(folder: Path, key: Path) -> None:
    """Sign a bundle's index with a secret key of Nix. Raises AikitError."""
    secret = files.read_bounded(key, 1 << 12).decode(errors="replace")
    signature = keys.sign(secret, files.read_bounded(folder / INDEX, MAX_BYTES))
    files.write_atomic(folder / SIGNATURE, f"{signature}\n".encode())


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
        paths = [item.path for item in items if (item.kind in (PathKind.MODEL, PathKind.DEB, PathKind.SOURCE)) is raw]
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


def is_own(name: str) -> bool:
    """Whether a file of this name can be a flake's: it stays below its folder, and no other program takes it for its own."""
    parts = name.split("/")
    return not any(part.startswith(".") or not part for part in parts) and not unprintable(name)


def _exchange(new: Path, old: Path) -> None:
    if old.exists():
        old.rename(new.with_name("before"))
    new.rename(old)


# --- Showing


def table(items: Sequence[Item]) -> Iterator[str]:
    """How much there is of what, and which licences travel with it."""
    for kind in PathKind:
        if some := [item for item in items if item.kind is kind]:
            yield f"{kind.value:15} {len(some):6} {console.size(sum(item.nar_size for item in some)):>10}"
    yield f"{'together':15} {len(items):6} {console.size(sum(item.nar_size for item in items)):>10}"
    for text, count in sorted(Counter(map(_license, items)).items()):
        if text:
            yield f"licence: {text}" + (f" ({count})" if count > 1 else "")


def _license(item: Item) -> str:
    if item.kind is PathKind.MODEL:
        terms = f"{item.license}, as its origin says" if item.license else "not known, ask its author"
        return f"{terms}: {item.name}"
    area = (item.license or "").partition(":")[0]
    return f"{area}, in each package usr/share/doc/*/copyright" if area else ""
