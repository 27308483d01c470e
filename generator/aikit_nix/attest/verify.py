"""Whether an image is the one that follows from its flake and its lock, byte for byte.

Nothing in it is searched for what may be bad: the manifest that the flake gives is made here, and an image has to be that
one. Its configuration, its layers and their order are then right; each blob has to have the bytes of its digest, and each
model's layer has to be, by the rule of docs/model-layer.md, the file with the SHA-256 that aikitfile and lock pin.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.attest import envelope, reproduce, verdict
from aikit_nix.attest import policy as policies
from aikit_nix.attest.policy import Policy
from aikit_nix.base import console, files, hashing, tar, typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.flakes.materials import Materials
from aikit_nix.image import blobs, diff, layout
from aikit_nix.image.blobs import Blocks, Opened
from aikit_nix.image.layout import Image, Layer
from aikit_nix.models import layer as model_layer
from aikit_nix.models import seen


@dataclass
class Report:
    """What was looked at and what differs; `checked` are lines for people."""

    checked: list[str] = field(default_factory=list)
    differences: list[Diagnostic] = field(default_factory=list)

    def same(self, what: str) -> None:
        self.checked.append(what)

    def differs(self, what: str) -> None:
        self.differences.append(Diagnostic(Severity.ERROR, "differs", what))

    def compare(self, what: str, found: object, wanted: object) -> None:
        """Note whether two values are the same."""
        if found == wanted:
            self.same(f"{what}: {found}")
        else:
            self.differs(f"{what}: {found}, and it should be {wanted}")


# --- An image

_NO_MANIFEST = (
    "what is signed is a manifest's digest, and a docker-archive has none: name the flake, or give an OCI layout"
)


def judge(
    name: str,
    found: Opened,
    materials: Materials | None,
    system: str | None,
    policy: Policy | None,
    evidence: Iterable[Path],
    report: Report,
) -> dict[str, Any]:
    """Check an image of a name, and that it fulfils a policy; the verdict, as a statement. Raises AikitError."""
    # Builders that a policy believes say what follows from a flake, too
    by_builders = policy and policy.require.rebuilds and materials is None
    given = None if by_builders else wanted(found.image, materials, system, report)
    image(found, materials, given, report)
    digest = found.image.digest or (given and given.digest) or ""
    if policy:
        own = verdict.about(materials, materials.system(system)) if materials and not report.differences else None
        statements = [*map(envelope.read, evidence), *envelope.beside(found)]
        reasons = list(policies.broken(policy, digest, statements, own)) if digest else [_NO_MANIFEST]
        for reason in reasons:
            report.differs(f"policy: {reason}")
        if not reasons:
            report.same(f"policy sha256:{policy.digest}")
    levels = [verdict.EQUAL] * bool(given) + [verdict.BY_POLICY] * bool(policy)
    return verdict.summary(
        name,
        digest or found.image.config_digest,
        levels,
        passed=not report.differences,
        policy=policy.digest if policy else None,
    )


def image(found: Opened, materials: Materials | None, wanted: Image | None, report: Report) -> None:
    """Check an image against itself, and against the `wanted` one, whose layout was made of the materials.

    Raises AikitError where it cannot be read.
    """
    pinned = {model.path: model.file.sha256 for model in materials.models} if materials else found.image.models()
    total = sum(layer.size for layer in found.image.layers)
    unpacked: list[tuple[str, int] | None] = []
    with console.progress(1, total) as progress, progress.file(found.where, total) as bar:
        for index in range(len(found.image.layers)):
            unpacked.append(_layer(found, index, materials, pinned, report, bar.advance))
    for path in sorted(pinned.keys() - {layer.model for layer in found.image.layers}):
        report.differs(f"{path}: it is pinned, and no layer of the image has it")
    if wanted:
        _compare(found, wanted, unpacked, report)


def wanted(found: Image, materials: Materials | None, system: str | None, report: Report) -> Image | None:
    """The image, without models' bytes, that the materials give for a system, else for an image's architecture; None where that
    cannot be had, which is a difference.
    """
    if materials is None:
        report.differs("not compared with a plan: no flake is here (name its folder with --flake)")
        return None
    own = {name for name in materials.plan.systems if ARCHITECTURES[name] == found.config.get("architecture")}
    try:
        return reproduce.built(materials, materials.system(system or next(iter(own), None)))
    except AikitError as failed:
        report.differs(f"not compared with a plan: {failed.diagnostics[0].message}")
        return None


def _layer(
    found: Opened,
    index: int,
    materials: Materials | None,
    pinned: Mapping[str, str],
    report: Report,
    progress: Callable[[int], None],
) -> tuple[str, int] | None:
    """Read one layer, each byte once; digest and size of what it unpacks to, None where something is wrong with it."""
    layer = found.image.layers[index]
    what = f"layer {index + 1} of {len(found.image.layers)}, {layer.contents[:60]}"
    blocks = found.blocks(index)
    if blocks is None and layer.model and (file := _in_store(layer.model, materials)):
        blocks = _as_layer(layer.model, file)
        what += f" (from {file})"
    if blocks is None:
        report.differs(f"{what}: the blob {layer.digest} is not in {found.where}")
        return None
    stored = _Stream(blocks, layer.size, progress)
    problem = ""
    try:
        plain = _unpacked(layer, stored)
        if layer.model:
            sha256, size = _model(layer.model, layer.size, plain)
            report.compare(f"sha256 of {layer.model}", sha256, pinned.get(layer.model))
        plain.drain()
        if plain.digest != layer.diff_id:
            problem = f"unpacks to {plain.digest}, and the configuration says {layer.diff_id}"
    except ValueError as bad:
        problem = str(bad)
    stored.drain()
    if (stored.digest, stored.size) != (layer.digest, layer.size):
        problem = (
            f"has {stored.digest} of {stored.size:,} bytes, and the manifest says {layer.digest} of {layer.size:,}"
        )
    if problem:
        report.differs(f"{what}: {problem}")
        return None
    report.same(f"{what}: {layer.digest}")
    if layer.model:
        seen.remember(layer.model, Pin(sha256, size, layer=LayerPin(plain.digest, plain.size)))
    return plain.digest, plain.size


class _Stream:
    """A layer's blocks, hashed on their way; no more of them than show that there are more than `most` bytes."""

    def __init__(
        self, blocks: Blocks, most: int | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        self._blocks = blocks
        self._hash = hashlib.sha256()
        self._most = most
        self._progress = progress
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._hash.update(block)
            self.size += len(block)
            self._progress(len(block))
            yield block
            if self._most is not None and self.size > self._most:
                return

    def drain(self) -> None:
        for _ in self:
            pass


def _unpacked(layer: Layer, stored: _Stream) -> _Stream:
    """The layer's tar: registries and tools may have packed it. Raises ValueError."""
    if layer.media_type.endswith(("+gzip", ".gzip")):
        return _Stream(blobs.gunzipped(iter(stored)))
    if layer.media_type.endswith("zstd"):
        raise ValueError("is packed with zstd, which this program does not unpack: push it as it is built")
    return stored


def _model(path: str, size: int, stream: _Stream) -> tuple[str, int]:
    """SHA-256 and size of the file in a model's layer of about `size` bytes. Raises ValueError where it is not by the rule."""
    blocks, start = iter(stream), b""
    longest = len(model_layer.header(path, size)) + model_layer.BLOCK
    while len(start) < longest and (block := next(blocks, b"")):
        start += block
    reader = iter(tar.TarReader(io.BytesIO(start)))
    count = next((member.size for member in reader if member.kind is tar.MemberKind.FILE), 0)
    head, trailer, whole = model_layer.header(path, count), model_layer.trailer(count), count
    if not start.startswith(head):
        raise ValueError("begins otherwise than the rule of model layers says (docs/model-layer.md)")
    content, rest = hashlib.sha256(), b""
    for block in chain([start[len(head) :]], blocks):
        content.update(memoryview(block)[:count])
        rest += block[count:]
        count -= min(count, len(block))
        if len(rest) > len(trailer):
            break
    if count or rest != trailer:
        raise ValueError("ends otherwise than the rule of model layers says (docs/model-layer.md)")
    return content.hexdigest(), whole


# --- Against the image that the flake gives


def _compare(found: Opened, wanted: Image, unpacked: list[tuple[str, int] | None], report: Report) -> None:
    """That an image is the wanted one, wherever it comes from and however its layers are packed."""
    for each in diff.images(wanted, found.image):
        report.differs(f"{each.part}: {each.b}, and the flake gives {each.a}")
    report.compare("configuration", found.image.config_digest, wanted.config_digest)
    for index, (one, layer) in enumerate(zip_longest(unpacked, wanted.layers), 1):
        if layer is None or one != (layer.digest, layer.size):
            report.differs(
                f"layer {index}: it is not the one that the flake gives, {layer.digest if layer else 'none'}"
            )
    if found.image.digest is None:
        for name in found.image.names:
            report.compare("name", layout.short(name), wanted.name)
        # Its manifest would be made of what was compared.
        report.same(f"manifest: {wanted.digest}, of this configuration and these layers")
        return
    if found.image.folder and wanted.folder:
        _compare_index(found.image.folder, wanted.folder, report)
    if found.image.digest != wanted.digest and _is_another_form(found.image, wanted):
        report.same(f"manifest: {found.image.digest}, another form of {wanted.digest}")
    else:
        report.compare("manifest", found.image.digest, wanted.digest)


def _compare_index(folder: Path, wanted: Path, report: Report) -> None:
    """What a layout says beside its image; tools that copy one leave parts of it out."""
    for name in ("index.json", "oci-layout"):
        texts = [files.read_bounded(each / name, layout.LIMIT) for each in (folder, wanted)]
        try:
            theirs, ours = map(typed_json.parse, texts)
        except ValueError as bad:
            report.differs(f"{name}: {bad}")
            continue
        for each in (*theirs["manifests"], *ours["manifests"]) if name == "index.json" else ():
            del each["digest"], each["size"]  # the manifest's, which is looked at
        for place in _beyond(theirs, ours, name):
            report.differs(f"{place}: it is not what the flake gives")


def _beyond(value: Any, wanted: Any, place: str) -> Iterator[str]:
    """Where a JSON value says more or something else than the wanted one."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        for key, each in value.items():
            if key in wanted:
                yield from _beyond(each, wanted[key], f"{place}: {key}")
            else:
                yield f"{place}: {key}"
    elif isinstance(value, list) and isinstance(wanted, list) and len(value) == len(wanted):
        for one, other in zip(value, wanted, strict=True):
            yield from _beyond(one, other, place)
    elif type(value) is not type(wanted) or value != wanted:
        yield place


def _is_another_form(found: Image, wanted: Image) -> bool:
    """Whether a registry's manifest says nothing but how the layers are packed: Docker's form, or with gzip."""
    theirs, ours = typed_json.parse(found.manifest), typed_json.parse(wanted.manifest)
    descriptors = [theirs["config"], *theirs["layers"]]
    return (
        theirs.get("schemaVersion") == ours["schemaVersion"]
        and theirs.keys() <= {"schemaVersion", "mediaType", "config", "layers", "annotations"}
        and theirs.get("annotations", ours["annotations"]) == ours["annotations"]
        and all(each.keys() == {"mediaType", "digest", "size"} for each in descriptors)
        and any(
            one["mediaType"] != other["mediaType"] for one, other in zip(theirs["layers"], ours["layers"], strict=False)
        )
        and theirs.get("mediaType", layout.MANIFEST) in _MANIFESTS
        and theirs["config"]["mediaType"] in _CONFIGS
        and all(each["mediaType"] in _LAYERS for each in theirs["layers"])
    )


_DOCKER = "application/vnd.docker"
_ROOTFS = f"{_DOCKER}.image.rootfs.diff.tar"
_MANIFESTS = (layout.MANIFEST, f"{_DOCKER}.distribution.manifest.v2+json")
_CONFIGS = ("application/vnd.oci.image.config.v1+json", f"{_DOCKER}.container.image.v1+json")
_LAYERS = (layout.LAYER, f"{layout.LAYER}+gzip", _ROOTFS, f"{_ROOTFS}.gzip")


# --- This machine's store


def in_store(materials: Materials, system: str, report: Report) -> None:
    """Check the models and .debs that this machine's Nix store has: their bytes against the locks. Raises AikitError."""
    for model in materials.models:
        if model.store_file.exists():
            sha256 = hashing.hash_file(model.store_file).sha256
            report.compare(f"sha256 of {model.store_file}", sha256, model.file.sha256)
        else:
            report.differs(f"{model.path}: {model.store_file} is not in the store (`aikit-nix fetch` brings it)")
    for package in {each.sha256: each for each in (*materials.debs(system), *materials.tools())}.values():
        file = package.store_path
        if file.exists():
            report.compare(f"sha256 of {file}", hashing.hash_file(file).sha256, package.sha256)


def _in_store(path: str, materials: Materials | None) -> Path | None:
    """A model's file in this machine's store, for a layout that was built without the models."""
    found = next((model.store_file for model in materials.models if model.path == path), None) if materials else None
    return found if found and found.is_file() else None


def _as_layer(path: str, file: Path) -> Blocks:
    """A model's layer, made from the file in the store."""
    try:
        yield from model_layer.blocks(path, file)
    except OSError as failed:
        raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None
