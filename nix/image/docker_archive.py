"""Write an image as a docker-archive, reading each model once, straight from its file.

    docker_archive.py SPEC.json > IMAGE.tar
    docker_archive.py SPEC.json --oci > IMAGE.tar    as an OCI layout in a tar, by whose manifest containerd knows the image
    docker_archive.py SPEC.json --id             prints the image's ID, which is its configuration's digest

SPEC.json: {"layout": the folder that layout.py made, "name": "NAME:TAG", "models": [{"path", "file"}]}; the models are the
image's lowest layers, in this order. Everything is hashed on its way and compared with what the manifest says. The
archive's own list of layers comes last: what breaks off before that is no image.
"""

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out

import model_layer

BLOCK = 1 << 20


class Image:
    """What SPEC.json leads to."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.layout = Path(spec["layout"])
        self.name = spec["name"]
        self.models = spec["models"]
        (self.manifest,) = json.loads((self.layout / "index.json").read_bytes())["manifests"]
        manifest = json.loads(self.blob(self.manifest).read_bytes())
        self.config, self.layers = manifest["config"], manifest["layers"]

    def blob(self, descriptor: dict[str, Any]) -> Path:
        return self.layout / "blobs" / descriptor["digest"].replace(":", "/")

    def files(self) -> Iterator[tuple[dict[str, Any], Iterable[bytes], str]]:
        """Of each blob its descriptor, its bytes, and what it is to people; the configuration last."""
        written = set()
        for index, layer in enumerate(self.layers):
            if layer["digest"] in written:
                continue
            written.add(layer["digest"])
            if index < len(self.models):
                model = self.models[index]
                blocks = model_layer.blocks(model["path"], Path(model["file"]))
                yield layer, blocks, f"{model['path']} ({model['file']})"
            else:
                yield layer, read(self.blob(layer)), str(self.blob(layer))
        yield self.config, read(self.blob(self.config)), str(self.blob(self.config))


def hex_of(descriptor: dict[str, Any]) -> str:
    return descriptor["digest"].removeprefix("sha256:")


def read(file: Path) -> Iterator[bytes]:
    with file.open("rb", buffering=0) as content:
        while block := content.read(BLOCK):
            yield block


def entry(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, 1
    return info.tobuf(tarfile.PAX_FORMAT)


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def write_file(name: str, data: bytes) -> None:
    write(entry(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))


def stream(image: Image, *, oci: bool) -> None:
    """Raises ValueError when a file is another one than the manifest says, OSError when it cannot be read."""

    def name(descriptor: dict[str, Any]) -> str:
        if oci:
            return f"blobs/sha256/{hex_of(descriptor)}"
        return f"{hex_of(descriptor)}.json" if descriptor is image.config else f"{hex_of(descriptor)}/layer.tar"

    for descriptor, blocks, what in image.files():
        write(entry(name(descriptor), descriptor["size"]))
        digest, size = hashlib.sha256(), 0
        for block in blocks:
            digest.update(block)
            size += len(block)
            if size > descriptor["size"]:
                break
            write(block)
        if (found := f"sha256:{digest.hexdigest()}") != descriptor["digest"] or size != descriptor["size"]:
            raise ValueError(
                f"{what} gives {found} of {size} bytes, and the image has {descriptor['digest']} of {descriptor['size']}: "
                "check it with `nix-store --verify-path`, or its pin"
            )
        write(bytes(-size % tarfile.BLOCKSIZE))
    if oci:
        write_file(name(image.manifest), image.blob(image.manifest).read_bytes())
        for file in ("oci-layout", "index.json"):
            write_file(file, (image.layout / file).read_bytes())
    else:
        listed = {"Config": name(image.config), "RepoTags": [image.name], "Layers": list(map(name, image.layers))}
        write_file("manifest.json", json.dumps([listed], separators=(",", ":")).encode())
    write(bytes(tarfile.RECORDSIZE))
    sys.stdout.buffer.flush()


def main(spec_file: str, *options: str) -> None:
    image = Image(json.loads(Path(spec_file).read_text(encoding="utf-8")))
    if options == ("--id",):
        sys.stdout.write(image.config["digest"] + "\n")
    elif options not in ((), ("--oci",)):
        sys.exit(f"error: the image goes to standard output, and {' '.join(options)} is no option")
    elif sys.stdout.isatty():
        sys.exit("error: the image goes to standard output: pipe it into `podman load`, `docker load` or a file")
    else:
        try:
            stream(image, oci=bool(options))
        except (OSError, ValueError) as problem:
            # Python empties its buffer once more at the end, and would report the same again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(problem, BrokenPipeError):
                sys.exit("error: the reader went away before the image was written")
            sys.exit(f"error: the image is not complete: {problem}")


if __name__ == "__main__":
    main(*sys.argv[1:])
