"""One layer of a folder, with its permissions: `folder_layer.py NAME FOLDER OUT`.

OUT becomes a folder with the layer, an uncompressed tar that is named by the sha256 of its bytes, and layers.json: a list,
here of one, of {"digest", "size", "created_by"}; NAME is what the image's history calls it. A layer depends on the folder
and on nothing else: owner root, time 1970-01-01T00:00:01Z, sorted names.
"""

import hashlib
import json
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO


class Hashed:
    """Writes a file and hashes it on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)


def entry(tar: tarfile.TarFile, path: Path, name: str, more: int) -> None:
    tar.inodes.clear()  # the store may keep equal files as one, which makes them no hard links of the image
    info = tar.gettarinfo(path, name)
    if not (info.isreg() or info.isdir() or info.issym()):
        sys.exit(f"error: {name} is neither a file nor a folder nor a symlink")
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = 1
    info.mode = 0o777 if info.issym() else info.mode | more
    if info.isreg():
        with path.open("rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)


def write_layers(layers: Iterable[tuple[str, Iterable[Path]]], root: Path, out: Path, more: int = 0) -> None:
    """Layers of paths below a root, lowest first, each with its name; `more` are permissions that all get."""
    out.mkdir()
    described: list[dict[str, Any]] = []
    for name, paths in layers:
        with (out / "unnamed").open("wb") as file:
            hashed = Hashed(file)
            with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                for path in sorted(paths):
                    entry(tar, path, str(path.relative_to(root)), more)
            size = file.tell()
        (out / "unnamed").rename(out / hashed.digest.hexdigest())
        described.append({"digest": f"sha256:{hashed.digest.hexdigest()}", "size": size, "created_by": name})
    (out / "layers.json").write_text(json.dumps(described, indent=2))


if __name__ == "__main__":
    name, folder, out = sys.argv[1:]
    write_layers([(name, Path(folder).rglob("*"))], Path(folder), Path(out))
