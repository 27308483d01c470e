"""Turn a docker-archive into an OCI image layout: `oci-layout.py OUT < IMAGE.tar`.

The archive is read as a stream and each layer's bytes are written once, hashed on the way. Layers stay
uncompressed, so that a blob's digest is the diff_id that the image's configuration already names. Reads what
nixpkgs' dockerTools and packages/debian write; needs nothing but Python.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Blobs:
    """The folder of content-addressed files. A blob is known by its digest and size in bytes, as OCI writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def path(self, blob: dict[str, Any]) -> Path:
        return self.folder / str(blob["digest"]).removeprefix("sha256:")

    def copy(self, file: BinaryIO) -> dict[str, Any]:
        digest = hashlib.sha256()
        size = 0
        unnamed = self.folder / "unnamed"
        with unnamed.open("wb") as copy:
            while block := file.read(BLOCK):
                digest.update(block)
                size += copy.write(block)
        blob = {"digest": f"sha256:{digest.hexdigest()}", "size": size}
        unnamed.rename(self.path(blob))
        return blob

    def add(self, value: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True).encode()
        blob = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
        self.path(blob).write_bytes(data)
        return blob


def unpack(archive: tarfile.TarFile, blobs: Blobs) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The archive's manifest of one image, and its other files as blobs."""
    manifests: list[dict[str, Any]] = []
    files = {}
    for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        if content and member.name == "manifest.json":
            manifests = json.load(content)
        elif content:
            files[member.name] = blobs.copy(content)
    if len(manifests) != 1:
        raise ValueError("it does not hold one image")
    return manifests[0], files


def convert(archive: tarfile.TarFile, out: Path) -> None:
    """Raises ValueError, KeyError or tarfile.TarError when the archive is another thing than an image."""
    blobs = Blobs(out / "blobs/sha256")
    image, files = unpack(archive, blobs)
    config_blob = files[image["Config"]]
    layers = [files[name] for name in image["Layers"]]
    config = json.loads(blobs.path(config_blob).read_bytes())
    if [layer["digest"] for layer in layers] != config["rootfs"]["diff_ids"]:
        raise ValueError("its layers are not those of its configuration: are they compressed?")
    for blob in files.values():
        if blob not in (config_blob, *layers):
            blobs.path(blob).unlink(missing_ok=True)

    labels = (config.get("config") or {}).get("Labels") or {}
    annotations = {key: value for key, value in labels.items() if key.startswith("org.opencontainers.")}
    manifest = blobs.add(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **config_blob},
            "layers": [{"mediaType": LAYER, **layer} for layer in layers],
            "annotations": annotations,
        }
    )
    # What `skopeo copy oci:DIR:NAME:TAG` and `podman load` call the image.
    reference = (image.get("RepoTags") or ["image:latest"])[0]
    title = "org.opencontainers.image.title"
    entry = {
        "mediaType": MANIFEST,
        **manifest,
        "platform": {"architecture": config["architecture"], "os": config["os"]},
        "annotations": {
            "org.opencontainers.image.ref.name": reference,
            title: annotations.get(title, reference.rpartition(":")[0]),
        },
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (out / "index.json").write_text(json.dumps(index, sort_keys=True), encoding="utf-8")
    (out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


try:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=BLOCK) as stream:
        convert(stream, Path(sys.argv[1]))
except (ValueError, KeyError, TypeError, tarfile.TarError) as problem:
    sys.exit(f"error: this is not a docker-archive with uncompressed layers: {problem}")
