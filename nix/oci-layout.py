"""Turn a docker-archive into an OCI image layout: `oci-layout.py OUT < IMAGE.tar`.

The archive is read as a stream and each layer's bytes are written once, hashed on the way. Layers stay uncompressed, so
that a blob's digest is the diff_id that the image's configuration already names. Reads what nixpkgs' dockerTools and
packages/debian write; needs nothing but Python.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

out = Path(sys.argv[1])
blobs = out / "blobs" / "sha256"


def store(file: BinaryIO) -> dict:
    """Write a blob; returns its digest and size in bytes, the start of an OCI descriptor."""
    digest = hashlib.sha256()
    size = 0
    unnamed = blobs / "unnamed"
    with unnamed.open("wb") as blob:
        while block := file.read(BLOCK):
            digest.update(block)
            size += blob.write(block)
    unnamed.rename(blobs / digest.hexdigest())
    return {"digest": f"sha256:{digest.hexdigest()}", "size": size}


def store_json(value: dict) -> dict:
    data = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


blobs.mkdir(parents=True)
members: dict[str, dict] = {}  # file of the archive -> its blob
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=BLOCK) as archive:
    manifests = None
    for member in archive:
        if not member.isfile() or (content := archive.extractfile(member)) is None:
            continue
        if member.name == "manifest.json":
            manifests = json.load(content)
        else:
            members[member.name] = store(content)

if not manifests or len(manifests) != 1:
    sys.exit("error: not a docker-archive of one image")
image = manifests[0]
config_blob = members.pop(image["Config"])
config = json.loads((blobs / config_blob["digest"].removeprefix("sha256:")).read_text())
layers = [members[name] for name in image["Layers"]]
if [layer["digest"] for layer in layers] != config["rootfs"]["diff_ids"]:
    sys.exit("error: the archive's layers are not those of its configuration (are they compressed?)")
for unused in members.keys() - set(image["Layers"]):
    if members[unused] not in [*layers, config_blob]:
        (blobs / members[unused]["digest"].removeprefix("sha256:")).unlink()

reference = image["RepoTags"][0] if image.get("RepoTags") else None
labels = (config.get("config") or {}).get("Labels") or {}
annotations = {key: value for key, value in labels.items() if key.startswith("org.opencontainers.")}
manifest = store_json(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **config_blob},
        "layers": [{"mediaType": LAYER, **layer} for layer in layers],
        **({"annotations": annotations} if annotations else {}),
    }
)
named = {}
if reference:
    named["org.opencontainers.image.ref.name"] = reference
    named["org.opencontainers.image.title"] = annotations.get(
        "org.opencontainers.image.title", reference.rpartition(":")[0]
    )
(out / "index.json").write_text(
    json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                {
                    "mediaType": MANIFEST,
                    **manifest,
                    "platform": {"architecture": config["architecture"], "os": config["os"]},
                    **({"annotations": named} if named else {}),
                }
            ],
        },
        sort_keys=True,
    )
)
(out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
