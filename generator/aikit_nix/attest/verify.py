"""Whether an image is what its manifest, the plan and the locks say: every blob, every model, every package, every text.

Each byte is read once. Nothing is believed: a layer that is called a model's is compared with the very bytes that
docs/model-layer.md asks for.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from aikit_nix.base import console, files, hashing, tar
from aikit_nix.base.errors import Diagnostic, Severity, error
from aikit_nix.base.hashing import Digests
from aikit_nix.debian.index import stanzas
from aikit_nix.flakes.materials import ARCHITECTURES, Model, Recipe
from aikit_nix.flakes.plan import Packages
from aikit_nix.image import blobs
from aikit_nix.image.blobs import Blocks, Opened
from aikit_nix.image.layout import Image, Layer
from aikit_nix.models import layer as model_layer
from aikit_nix.nix import store

_STATUS = "var/lib/dpkg/status.d/"
_LINKS = 40  # as many as Linux follows
_TEXT = 16 << 20  # bytes of a text that is looked at


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
            self.same(what)
        else:
            self.differs(f"{what}: {found}, and it should be {wanted}")


# --- An image


def image(found: Opened, recipe: Recipe | None, report: Report) -> None:
    """Check an image against itself and, where there is one, against its recipe. Raises AikitError where it cannot be read."""
    contents = _Contents(
        frozenset(text.path.lstrip("/") for text in (recipe.plan.files if recipe else ())),
        frozenset(layer.model.lstrip("/") for layer in found.image.layers if layer.model),
    )
    models = {model.path: model for model in recipe.models} if recipe else {}
    total = sum(layer.size for layer in found.image.layers)
    seen: dict[str, Digests] = {}
    with console.progress(1, total) as progress, progress.file(found.where, total) as bar:
        for index, layer in enumerate(found.image.layers):
            if digests := _layer(found, index, models, contents, report, bar.advance):
                seen[layer.model or ""] = digests
    if found.image.digest:
        report.same(f"manifest {found.image.digest}")
    report.same(f"configuration {found.image.config_digest}")
    _compare_labels(found, seen, report)
    if recipe:
        _compare_models(found, models, seen, report)
        _compare_texts(recipe, contents, report)
        _compare_packages(recipe, found, contents, report)


@dataclass
class _Contents:
    """What the layers that are no models hold, as far as somebody knows what it should be; the last layer's counts."""

    wanted: frozenset[str]
    models: frozenset[str]
    hidden: list[str] = field(default_factory=list)  # models that the layer at hand puts something over
    links: dict[str, str] = field(default_factory=dict)  # the targets of symlinks
    texts: dict[str, bytes] = field(default_factory=dict)  # by path without the first slash
    packages: dict[str, str] = field(default_factory=dict)  # versions

    def place(self, member: tarfile.TarInfo) -> str:
        """Where an entry comes to lie, as container engines see it: through the links that are there. Raises ValueError."""
        name = posixpath.normpath(f"/{member.name}").lstrip("/")
        for _ in range(_LINKS):
            parts = name.split("/")
            above = ("/".join(parts[:end]) for end in range(1, len(parts)))
            link = next((folder for folder in above if folder in self.links), None)
            if link is None:
                break
            rest = name.removeprefix(link)
            name = posixpath.normpath(f"/{posixpath.join(posixpath.dirname(link), self.links[link])}{rest}").lstrip("/")
        else:
            raise ValueError("links in it lead to each other")
        self.links.pop(name, None)
        if member.issym():
            self.links[name] = member.linkname
        return name

    def hides(self, member: tarfile.TarInfo, name: str) -> bool:
        """Whether an entry takes the place of a model, or of a folder above one."""
        if name in self.models or posixpath.basename(name).startswith(".wh."):
            return True
        return not member.isdir() and any(model.startswith(f"{name}/") for model in self.models)

    def wants(self, name: str) -> bool:
        return name in self.wanted or (name.startswith(_STATUS) and not name.endswith(".md5sums"))

    def add(self, name: str, content: bytes) -> None:
        if name in self.wanted:
            self.texts[name] = content
            return
        for package in stanzas(content.decode(errors="replace")):
            self.packages[package.get("package", name)] = package.get("version", "")


def _layer(
    found: Opened,
    index: int,
    models: dict[str, Model],
    contents: _Contents,
    report: Report,
    progress: Callable[[int], None],
) -> Digests | None:
    """Read one layer; the digests of a model's file."""
    layer = found.image.layers[index]
    what = f"layer {index + 1} of {len(found.image.layers)}, {layer.contents[:60]}"
    blocks = found.blocks(index)
    in_store = models.get(layer.model or "")
    if blocks is None and layer.model and in_store and (file := in_store.store_file).is_file():
        blocks = _as_layer(layer.model, file)
        what += f" (from {file})"
    if blocks is None:
        report.differs(f"{what}: the blob {layer.digest} is not in {found.where}")
        return None
    stream = _Stream(_up_to(blocks, layer.size), progress)
    digests = None
    problem = ""
    try:
        tar = _unpacked(layer, stream)
        if layer.model:
            digests = _read_model(layer.model, _tar_size(layer, in_store), tar)
        else:
            _read_base(tar, contents)
            if contents.hidden:
                problem = f"holds {', '.join(contents.hidden)}: it hides what a model's layer has"
        tar.drain()  # tarfile stops at the end marker
        if tar.digest != layer.diff_id:
            problem = f"unpacks to {tar.digest}, and the configuration says {layer.diff_id}"
    except ValueError as bad:
        problem = str(bad)
    stream.drain()
    if stream.size != layer.size or stream.digest != layer.digest:
        problem = (
            f"has {stream.digest} of {stream.size:,} bytes, and the manifest says {layer.digest} of {layer.size:,}"
        )
    if problem:
        report.differs(f"{what}: {problem}")
        return None
    report.same(f"{what}: {layer.digest}")
    return digests


def _up_to(blocks: Blocks, size: int) -> Blocks:
    """No more blocks than show that there are more bytes: a registry may send them for ever."""
    for block in blocks:
        yield block
        size -= len(block)
        if size < 0:
            return


def _tar_size(layer: Layer, model: Model | None) -> int:
    """The bytes of a model's layer, unpacked, as far as anybody says."""
    return model.file.layer.size if model and model.file.layer else layer.size


def _unpacked(layer: Layer, stream: _Stream) -> _Stream:
    """The layer's tar: registries and tools may have packed it. Raises ValueError."""
    if layer.media_type.endswith(("+gzip", ".gzip")):
        return _Stream(blobs.gunzipped(iter(stream)))
    if layer.media_type.endswith("zstd"):
        raise ValueError("is packed with zstd, which this program does not unpack: push it as it is built")
    return stream


class _Stream(io.RawIOBase):
    """A layer's bytes, hashed on their way."""

    def __init__(self, blocks: Blocks, progress: Callable[[int], None] = lambda _: None) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")
        self._hash = hashlib.sha256()
        self._progress = progress
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def readable(self) -> bool:
        return True

    def block(self) -> bytes:
        """The next bytes, however many; empty at the end."""
        if self._left:
            block, self._left = bytes(self._left), memoryview(b"")
            return block
        block = next(self._blocks, b"")
        self._hash.update(block)
        self.size += len(block)
        self._progress(len(block))
        return block

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer at the end only."""
        parts: list[bytes] = []
        while size > 0 and (block := self.block()):
            parts.append(block[:size])
            self._left = memoryview(block)[size:]
            size -= len(parts[-1])
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.block, b"")

    def drain(self) -> None:
        for _ in self:
            pass


def _read_model(path: str, size: int, stream: _Stream) -> Digests:
    """The digests of the file in a model's layer of `size` bytes. Raises ValueError where it is not by the rule."""
    head = stream.read(len(model_layer.header(path, size)))
    count = _file_size(head)
    if count is None or model_layer.header(path, count) != head:
        raise ValueError("begins otherwise than the rule of model layers says (docs/model-layer.md)")
    hasher = hashing.Hasher()
    try:
        left = count
        while left and (block := stream.read(min(blobs.BLOCK, left))):
            hasher.update(block)
            left -= len(block)
        digests = hasher.digests()
    finally:
        hasher.close()
    trailer = model_layer.trailer(count)
    if left or stream.read(len(trailer) + 1) != trailer:
        raise ValueError("ends otherwise than the rule of model layers says (docs/model-layer.md)")
    return digests


def _file_size(head: bytes) -> int | None:
    """The size of the file whose tar header ends some bytes."""
    with suppress(ValueError), tar.opened(io.BytesIO(head), "r:") as archive:
        for member in tar.members(archive):
            if member.isreg():
                return member.size
    return None


def _read_base(stream: _Stream, contents: _Contents) -> None:
    """Note what is known of a tar's files. Raises ValueError where it cannot be read: others may find more in it."""
    contents.hidden = []
    try:
        with tar.opened(stream, "r|") as archive:
            for member in tar.members(archive):
                if archive.pax_headers.keys() - {"comment"}:
                    raise ValueError("it has records for all members, which only some readers heed")
                name = contents.place(member)
                if contents.hides(member, name):
                    contents.hidden.append(name)
                if not contents.wants(name):
                    continue
                contents.texts.pop(name, None)  # whatever it is, it lies over what was there
                file = archive.extractfile(member) if member.isreg() and member.size <= _TEXT else None
                if file:
                    contents.add(name, file.read())
    except ValueError as bad:
        raise ValueError(f"is no tar that can be read ({bad})") from None


# --- Against the recipe


def _compare_labels(found: Opened, seen: dict[str, Digests], report: Report) -> None:
    """The models' sha256 in the image's label against their bytes."""
    for path, sha256 in found.image.models().items():
        if path in seen:
            report.compare(f"label of {path}", sha256, seen[path].sha256)
        elif path not in {layer.model for layer in found.image.layers}:
            report.differs(f"{path}: the image's label names it, and no layer has it")


def _compare_models(found: Opened, models: dict[str, Model], seen: dict[str, Digests], report: Report) -> None:
    layers = {layer.model: layer for layer in found.image.layers if layer.model}
    for path, model in models.items():
        if path not in layers:
            report.differs(f"{path}: the plan has it, the image has not")
            continue
        if model.file.layer and layers[path].diff_id == layers[path].digest:
            report.compare(f"layer of {path}", layers[path].digest, model.file.layer.digest)
        if path in seen:
            report.compare(f"sha256 of {path}", seen[path].sha256, model.file.sha256)
            if model.blake3:
                report.compare(f"BLAKE3 of {path}", seen[path].blake3, model.blake3)
    for path in sorted(layers.keys() - models.keys()):
        report.differs(f"{path}: the image has it, the plan has not")


def _compare_texts(recipe: Recipe, contents: _Contents, report: Report) -> None:
    for text in recipe.plan.files:
        content = contents.texts.get(text.path.lstrip("/"))
        if content is None:
            report.differs(f"{text.path}: the plan has it, the image has not")
        elif content != text.text.encode():
            report.differs(f"{text.path}: the image has another text than the plan")
        else:
            report.same(text.path)


def _compare_packages(recipe: Recipe, found: Opened, contents: _Contents, report: Report) -> None:
    """The image's package database against the lock of the .debs."""
    if recipe.plan.packages is not Packages.DEBIAN:
        return
    system = next(
        (name for name, own in ARCHITECTURES.items() if own == found.image.config.get("architecture")), recipe.system()
    )
    pinned = {package.name: package.version for package in recipe.debs(system)}
    for name, version in sorted(contents.packages.items()):
        if name in pinned:
            report.compare(f"package {name}", version, pinned[name])
        else:
            report.differs(f"package {name} {version}: the image has it, the lock has not")
    if not contents.packages:
        report.differs("the image has no list of Debian packages (/var/lib/dpkg/status.d)")


def same_image(found: Image, again: Image, report: Report) -> None:
    """Compare an image with the one that its recipe gives, layer by layer."""
    for index, (one, other) in enumerate(zip_longest(found.layers, again.layers), 1):
        name = (one or other).contents[:60]
        report.compare(f"layer {index} ({name}) as built", one and one.diff_id, other and other.diff_id)
    report.compare("configuration as built", found.config_digest, again.config_digest)
    if found.digest:
        report.compare("manifest as built", found.digest, again.digest)


# --- This machine's store


def in_store(recipe: Recipe, system: str, report: Report) -> None:
    """Check the models and .debs that this machine's Nix store has: their bytes against the locks. Raises AikitError."""
    for model in recipe.models:
        file = model.store_file
        if not file.exists():
            report.differs(f"{model.path}: {file} is not in the store (`aikit-nix fetch` brings it)")
        elif model.blake3:
            right = hashing.verify_blake3(file, model.blake3)
            report.compare(f"BLAKE3 of {file}", "as locked" if right else "another", "as locked")
        else:
            report.compare(f"sha256 of {file}", hashing.hash_file(file).sha256, model.file.sha256)
    for package in {each.sha256: each for each in (*recipe.debs(system), *recipe.tools())}.values():
        file = store.store_path(store.name(posixpath.basename(package.filename)), package.sha256)
        if file.exists():
            report.compare(f"sha256 of {file}", hashing.hash_file(file).sha256, package.sha256)


def _as_layer(path: str, file: Path) -> Blocks:
    """A model's layer, made from the file in the store."""
    try:
        yield from model_layer.blocks(path, file)
    except OSError as failed:
        raise error(f"cannot read {file}: {files.reason(failed)}", code="unreadable") from None
