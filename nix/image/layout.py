"""Put an image together from layers whose digests are known: `layout.py SPEC.json OUT`.

OUT becomes an OCI image layout. What it says is the image; which of the layers' bytes lie in it is another matter: those
of the base are links to where they are already, and so are a model's where SPEC.json says where its layer is.

SPEC.json:
    name, tag        the image's reference
    architecture     as OCI writes it: amd64, arm64
    created          the time that the image claims, RFC 3339 or seconds since 1970
    config           how to run it: Entrypoint, Env, Labels …
    models           from the bottom: {"path", "layer": {"digest", "size"} or a JSON file with them, "blob": file or null}
    base             above them: folders as folder_layer.py makes them
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def layers_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All layers, lowest first: {"digest", "size", "created_by", "blob"}."""
    layers = []
    for model in spec["models"]:
        layer = model["layer"]
        known = json.loads(Path(layer).read_text(encoding="utf-8")) if isinstance(layer, str) else layer
        layers.append({**known, "created_by": f"model layer: {model['path']}", "blob": model["blob"]})
    for folder in spec["base"]:
        for layer in json.loads(Path(folder, "layers.json").read_text(encoding="utf-8")):
            layers.append({**layer, "blob": str(Path(folder, layer["digest"].removeprefix("sha256:")))})
    return layers


def full_name(name: str, tag: str) -> str:
    """The reference as containerd and podman want it: with a registry, which is Docker's where none is named."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    return f"{name}:{tag}"


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def encode(value: dict[str, Any]) -> bytes:
    """The same value gives the same bytes, on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def moment(created: str | int) -> str:
    """RFC 3339."""
    return created if isinstance(created, str) else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))


def main(spec_file: str, out: str) -> None:
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    created = moment(spec["created"])
    layers = layers_of(spec)
    blobs = Path(out, "blobs/sha256")
    blobs.mkdir(parents=True)

    def add(media_type: str, value: dict[str, Any]) -> dict[str, Any]:
        data = encode(value)
        blob = descriptor(media_type, data)
        (blobs / blob["digest"].removeprefix("sha256:")).write_bytes(data)
        return blob

    for layer in layers:
        link = blobs / layer["digest"].removeprefix("sha256:")
        if not layer["blob"] or link.is_symlink():
            continue
        link.symlink_to(layer["blob"])
        # Its digest is Nix's business: a fixed output, or this build's own.
        if (size := link.stat().st_size) != layer["size"]:
            sys.exit(f"error: {layer['created_by']}: the layer has {size} bytes, and the plan says {layer['size']}")

    platform = {"architecture": spec["architecture"], "os": "linux"}
    labels = spec["config"].get("Labels", {})
    config = {
        **platform,
        "created": created,
        "config": spec["config"],
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        "history": [{"created": created, "created_by": layer["created_by"]} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(CONFIG, config),
        "layers": [{"mediaType": LAYER, "digest": layer["digest"], "size": layer["size"]} for layer in layers],
        "annotations": {key: value for key, value in labels.items() if key.startswith("org.opencontainers.")},
    }
    names = {
        "io.containerd.image.name": full_name(spec["name"], spec["tag"]),
        "org.opencontainers.image.ref.name": spec["tag"],
    }
    entry = {**add(MANIFEST, manifest), "platform": platform, "annotations": names}
    Path(out, "index.json").write_bytes(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
    Path(out, "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
