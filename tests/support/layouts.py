"""OCI layouts of small images, put together as `nix build .#oci` does it, without Nix."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aikit_nix.base import data
from aikit_nix.models import layer as model_layer
from aikit_nix.nix import store

STATUS = "var/lib/dpkg/status.d"


def tar(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar of regular files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer(*entries: tuple[str, bytes | str | None]) -> bytes:
    """A layer: bytes are a file, None a read-only folder, `->x` a symlink, `=x` a hard link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mode = 0o555
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                member.linkname = content.lstrip("->=")
            archive.addfile(member)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    """Tars that cost who reads them more than they weigh."""

    def entry(kind: bytes) -> bytes:
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 40
        return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)

    def records(values: dict[str, str]) -> bytes:
        head = tarfile.TarInfo("x")
        head.pax_headers = values
        return head.tobuf(tarfile.PAX_FORMAT)

    before = records({"comment": "x"})[:1024]  # without what they are about
    return {
        "a name of a tebibyte": entry(tarfile.GNUTYPE_LONGNAME),
        "records of a tebibyte": entry(tarfile.XHDTYPE),
        "a sparse file": entry(tarfile.GNUTYPE_SPARSE),
        "heads without an end": before * 3000 + bytes(1024),
        "a map of a sparse file": records({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + b"9" * 4096,
        "a map of a sparse file in records": records({"GNU.sparse.map": "0,1," * 1000}) + bytes(1024),
    }


def write(
    folder: Path,
    models: Mapping[str, bytes],
    files: Mapping[str, bytes],
    *,
    labels: Mapping[str, str] | None = None,
    architecture: str = "amd64",
    with_models: bool = True,
    name: str = "llama",
    run: Mapping[str, Any] | None = None,
    layer: bytes | None = None,
) -> Path:
    """A layout in `folder`/layout: a layer a model (path in the image → bytes), and above them one with `files`, or `layer`."""
    folder.mkdir(parents=True, exist_ok=True)
    layer = tar(files) if layer is None else layer
    digest = hashlib.sha256(layer).hexdigest()
    base = folder / "base"
    base.mkdir()
    (base / digest).write_bytes(layer)
    described = {"digest": f"sha256:{digest}", "size": len(layer), "created_by": "texts"}
    (base / "layers.json").write_text(json.dumps([described]))
    listed = []
    for index, (path, content) in enumerate(sorted(models.items())):
        file, blob = folder / f"model-{index}", folder / f"layer-{index}"
        file.write_bytes(content)
        blob.write_bytes(b"".join(model_layer.blocks(path, file)))
        listed.append(
            {"path": path, "layer": model_layer.describe(path, file), "blob": str(blob) if with_models else None}
        )
    sha256 = {path: f"sha256:{hashlib.sha256(content).hexdigest()}" for path, content in models.items()}
    spec = {
        "name": name,
        "tag": "avx2",
        "architecture": architecture,
        "created": "1970-01-01T00:00:01Z",
        "config": {**(run or {}), "Labels": {"aikit-nix.models": json.dumps(sha256), **(labels or {})}},
        "models": listed,
        "base": [str(base)],
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    script("layout.py", folder / "spec.json", folder / "layout")
    return folder / "layout"


def make(
    folder: Path, models: Mapping[str, bytes], text: bytes = b"text", *, blobs: bool = False, name: str = "me/tiny"
) -> Path:
    """The same in the new folder itself, of an image that says how it is run; `blobs` are the models' layers."""
    run = {
        "Entrypoint": ["llama-server", "--model", next(iter(models), "none")],
        "Cmd": ["--ctx-size", "512"],
        "Env": ["HOME=/tmp", "PATH=/usr/bin"],
        "ExposedPorts": {"8080/tcp": {}},
        "User": "65532:65532",
    }
    parts = folder.with_name(folder.name + "-parts")
    return write(parts, models, {"config.yaml": text}, with_models=blobs, name=name, run=run).rename(folder)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def add_to_store(folder: Path, name: str, content: bytes) -> Path:
    """A model in the Nix store, as `aikit-nix fetch` puts it there."""
    file = folder / name
    file.write_bytes(content)
    store.add(file, name, sha256(content))
    return store.store_path(name, sha256(content))


def archive(layout: Path, to: Path) -> Path:
    """The same image as a docker-archive."""
    spec: dict[str, Any] = {"layout": str(layout), "name": "llama:avx2", "models": []}
    to.with_suffix(".json").write_text(json.dumps(spec))
    to.write_bytes(script("docker_archive.py", to.with_suffix(".json")))
    return to


def script(name: str, *arguments: str | Path) -> bytes:
    argv = [sys.executable, "-IB", str(data.NIX / "image" / name), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def real_blobs(layout: Path) -> list[Path]:
    """The layout's blobs, which become files of their own: to be damaged."""
    found = sorted((layout / "blobs/sha256").iterdir())
    for blob in found:
        content = blob.read_bytes()
        blob.unlink()
        blob.write_bytes(content)
    return found
