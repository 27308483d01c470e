"""Write layers of folders and store paths, and the docker-archive of an image of store paths, reading every byte once.

    layered_image.py layer FOLDER > LAYER.tar             the last layer: a folder with its permissions
    layered_image.py plan OPTIONS.json GRAPH... > PLAN    which store paths make which layer
    layered_image.py stream PLAN > IMAGE.tar              the image
    layered_image.py packages ROOT OUT                    layers of a tree of Debian packages' files, as image/layers.py has them

A layer depends on the store paths in it and on nothing else: owner root, time 1970-01-01T00:00:01Z, sorted names. The
sizes are known before the bytes are, and nothing in a docker-archive's order asks for the digests first: configuration
and manifest stand at the end, so a model is read once, hashed and written on the way, and never stored in between.
"""

import hashlib
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 20
END = tarfile.RECORDSIZE  # a tar ends with two empty blocks and is padded to this
STATUS = "var/lib/dpkg/status.d"
LARGE = 32 << 20  # bytes: a package with more has a layer of its own, which others' updates do not touch
MOST_LARGE = 16


def header(name: str, status: os.stat_result | None = None, link: str = "", *, writable: bool = False) -> bytes:
    """A tar header; of a folder where there is no status."""
    info = tarfile.TarInfo(name)
    info.mtime = 1
    info.uname = info.gname = "root"
    mode = status.st_mode if status else stat.S_IFDIR | 0o755
    if writable:
        mode |= stat.S_IWUSR
    info.mode = stat.S_IMODE(mode)
    if stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        info.type = tarfile.SYMTYPE
        info.linkname = link
        info.mode = 0o777
    elif status and stat.S_ISREG(mode):
        info.size = status.st_size
    else:
        sys.exit(f"error: {name} is neither a file nor a folder nor a symlink")
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int, unit: int = tarfile.BLOCKSIZE) -> bytes:
    return bytes(-size % unit)


def part(path: Path, name: str, *, writable: bool = False) -> tuple[bytes, Path | None, int]:
    """Header, file (None where there is no content) and its size in bytes, for a path."""
    status = path.lstat()
    link = str(path.readlink()) if path.is_symlink() else ""
    regular = stat.S_ISREG(status.st_mode)
    head = header(name, status, link, writable=writable)
    return head, path if regular else None, status.st_size if regular else 0


def walk(path: Path, name: str) -> Iterator[tuple[bytes, Path | None, int]]:
    """The parts of a path and of all below it, sorted."""
    yield part(path, name)
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            yield from walk(entry, f"{name}/{entry.name}")


class Layer:
    """A tar of its own: first its size, then its bytes."""

    def __init__(self, parts: list[tuple[bytes, Path | None, int]]) -> None:
        self.parts = parts
        used = sum(len(head) + size + len(padding(size)) for head, _, size in parts) + 2 * tarfile.BLOCKSIZE
        self.size = used + len(padding(used, END))

    def blocks(self) -> Iterator[bytes]:
        used = 0
        for head, path, size in self.parts:
            yield head
            used += len(head) + size + len(padding(size))
            if path is None:
                continue
            left = size
            with path.open("rb", buffering=0) as file:
                while left and (block := file.read(min(BLOCK, left))):
                    left -= len(block)
                    yield block
            if left:
                sys.exit(f"error: {path} became shorter while it was read")
            yield padding(size)
        yield bytes(self.size - used)


def store_layer(paths: list[str]) -> Layer:
    parts: list[tuple[bytes, Path | None, int]] = [(header("nix"), None, 0), (header("nix/store"), None, 0)]
    for path in paths:
        parts += walk(Path(path), path.lstrip("/"))
    return Layer(parts)


def folder_layer(folder: Path) -> Layer:
    return Layer([part for entry in sorted(folder.iterdir()) for part in walk(entry, entry.name)])


def package_layers(root: Path) -> Iterator[tuple[str, Layer]]:
    """The large packages' layers, the largest at the bottom, and above them all else; each with its name.

    Files of the store are writable for their owner in an image, as a distribution has them.
    """
    packages: dict[str, list[Path]] = {}
    for listed in sorted((root / STATUS).glob("*.md5sums")):
        named = (root / line.split(maxsplit=1)[1] for line in listed.read_text().splitlines())
        packages[listed.stem] = [path for path in named if path.is_file() and not path.is_symlink()]
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in packages.items()}
    large = [name for name in sorted(sizes, key=lambda name: (-sizes[name], name)) if sizes[name] > LARGE][:MOST_LARGE]

    def layer(paths: set[Path]) -> Layer:
        above = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)} - {root}
        return Layer([part(path, str(path.relative_to(root)), writable=True) for path in sorted(paths | above)])

    for name in large:
        yield f"Debian package {name}", layer(set(packages[name]))
    yield "Debian packages", layer(set(root.rglob("*")).difference(*(packages[name] for name in large)))


def write_layers(root: Path, out: Path) -> None:
    out.mkdir()
    described = []
    for name, layer in package_layers(root):
        digest = hashlib.sha256()
        with (out / "unnamed").open("wb") as file:
            for block in layer.blocks():
                digest.update(block)
                file.write(block)
        (out / "unnamed").rename(out / digest.hexdigest())
        described.append({"digest": f"sha256:{digest.hexdigest()}", "size": layer.size, "created_by": name})
    (out / "layers.json").write_text(json.dumps(described, indent=2))


def closure(graph: Path) -> Iterator[str]:
    """The store paths of an exportReferencesGraph file: path, deriver, number of references, the references."""
    lines = iter(graph.read_text().splitlines())
    for path in lines:
        next(lines)
        for _ in range(int(next(lines))):
            next(lines)
        yield path


def size_on_disk(path: str) -> int:
    return sum(size for _, _, size in walk(Path(path), path))


def plan(options: dict, graphs: list[str]) -> dict:
    """One layer a store path; when there are too many, the smallest share the first one."""
    own = {options["configuration"], options["customisationLayer"]}
    paths = sorted({path for graph in graphs for path in closure(Path(graph))} - own)
    room = options["maxLayers"] - 1  # the last layer is the customisation
    if len(paths) > room:
        by_size = sorted(paths, key=lambda path: (-size_on_disk(path), path))
        layers = [sorted(by_size[room - 1 :]), *([path] for path in sorted(by_size[: room - 1]))]
    else:
        layers = [[path] for path in paths]
    return {
        "configuration": options["configuration"],
        "customisationLayer": options["customisationLayer"],
        "layers": layers,
        "repoTag": options["repoTag"],
    }


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def stream(spec: dict) -> None:
    image = json.loads(Path(spec["configuration"]).read_text())
    names, digests, history = [], [], []

    def add(size: int, blocks: Iterator[bytes], comment: str) -> None:
        name = f"{len(names) + 1:03}/layer.tar"
        info = tarfile.TarInfo(name)
        info.size = size
        info.mtime = 1
        write(info.tobuf(tarfile.PAX_FORMAT))
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
            write(block)
        write(padding(size))
        names.append(name)
        digests.append(f"sha256:{digest.hexdigest()}")
        history.append({"created": image["created"], "comment": comment})

    for paths in spec["layers"]:
        layer = store_layer(paths)
        add(layer.size, layer.blocks(), f"store paths: {paths}")
    last = Path(spec["customisationLayer"])
    with last.open("rb", buffering=0) as file:
        add(last.stat().st_size, iter(lambda: file.read(BLOCK), b""), "customisation")

    def add_file(name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mtime = 1
        write(info.tobuf(tarfile.PAX_FORMAT) + data + padding(len(data)))

    image |= {"rootfs": {"type": "layers", "diff_ids": digests}, "history": history}
    config = json.dumps(image, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    add_file(config_name, config)
    add_file(
        "manifest.json",
        json.dumps([{"Config": config_name, "RepoTags": [spec["repoTag"]], "Layers": names}]).encode(),
    )
    write(bytes(END))
    sys.stdout.buffer.flush()


def main(mode: str, *arguments: str) -> None:
    if mode == "layer":
        for block in folder_layer(Path(arguments[0])).blocks():
            write(block)
    elif mode == "packages":
        write_layers(*map(Path, arguments))
    elif mode == "plan":
        json.dump(plan(json.loads(Path(arguments[0]).read_text()), list(arguments[1:])), sys.stdout)
    elif sys.stdout.isatty():
        sys.exit("error: the image goes to standard output: pipe it into `podman load`, `docker load` or a file")
    else:
        try:
            stream(json.loads(Path(arguments[0]).read_text()))
        except BrokenPipeError:
            sys.exit("error: the reader went away before the image was written")


if __name__ == "__main__":
    main(*sys.argv[1:])
