"""Take the layers out of what dockerTools makes: `layers.py NAME OUT < DOCKER-ARCHIVE`.

OUT becomes a folder with one uncompressed tar a layer, named by the sha256 of its bytes, and layers.json: a list,
lowest first, of {"digest", "size", "created_by"}; NAME is what the image's history calls the last. The archive is read as a
stream, each byte once.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20


def store(content: BinaryIO, folder: Path) -> dict[str, Any]:
    """Copy a file into the folder, under the name that its bytes give it."""
    digest, size = hashlib.sha256(), 0
    unnamed = folder / "unnamed"
    with unnamed.open("wb") as copy:
        while block := content.read(BLOCK):
            digest.update(block)
            size += copy.write(block)
    unnamed.rename(folder / digest.hexdigest())
    return {"digest": f"sha256:{digest.hexdigest()}", "size": size}


def take(archive: tarfile.TarFile, name: str, folder: Path) -> list[dict[str, Any]]:
    """Raises ValueError, KeyError or tarfile.TarError when the archive is another thing than an image."""
    files: dict[str, dict[str, Any]] = {}
    for member in archive:
        if content := archive.extractfile(member) if member.isfile() else None:
            files[member.name] = store(content, folder)

    def read(file: str) -> Any:
        return json.loads((folder / files[file]["digest"].removeprefix("sha256:")).read_bytes())

    images = read("manifest.json")
    if len(images) != 1:
        raise ValueError("it does not hold one image")
    config = read(images[0]["Config"])
    layers = [files[file] for file in images[0]["Layers"]]
    if [layer["digest"] for layer in layers] != config["rootfs"]["diff_ids"]:
        raise ValueError("its layers are not those of its configuration: are they compressed?")
    for file in {entry["digest"] for entry in files.values()} - {layer["digest"] for layer in layers}:
        (folder / file.removeprefix("sha256:")).unlink()
    steps = [step for step in config["history"] if not step.get("empty_layer")]
    # The last is dockerTools' customisation layer, and all else are store paths.
    comments = [*(step["comment"] for step in steps[:-1]), name]
    return [{**layer, "created_by": f"dockerTools: {comment}"} for layer, comment in zip(layers, comments, strict=True)]


def main(name: str, out: str) -> None:
    folder = Path(out)
    folder.mkdir()
    try:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=BLOCK) as archive:
            layers = take(archive, name, folder)
    except (ValueError, KeyError, TypeError, tarfile.TarError) as problem:
        sys.exit(f"error: this is not a docker-archive with uncompressed layers: {problem}")
    (folder / "layers.json").write_text(json.dumps(layers, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
