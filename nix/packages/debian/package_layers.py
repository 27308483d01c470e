"""The layers of a tree of Debian packages' files: `package_layers.py ROOT OUT`; OUT is as folder_layer.py makes it."""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out
from folder_layer import write_layers  # type: ignore[import-not-found] # it lies beside this file when it runs

STATUS = "var/lib/dpkg/status.d"
LARGE = 32 << 20  # bytes: a package with more has a layer of its own, which others' updates do not touch
MOST_LARGE = 16


def layers(root: Path) -> Iterator[tuple[str, set[Path]]]:
    """The large packages' layers, the largest at the bottom, and above them all else; each with its name and its paths."""
    packages: dict[str, list[Path]] = {}
    for listed in sorted((root / STATUS).glob("*.md5sums")):
        named = (root / line.split(maxsplit=1)[1] for line in listed.read_text().splitlines())
        packages[listed.stem] = [path for path in named if path.is_file() and not path.is_symlink()]
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in packages.items()}
    large = [name for name in sorted(sizes, key=lambda name: (-sizes[name], name)) if sizes[name] > LARGE][:MOST_LARGE]

    def with_folders(paths: set[Path]) -> set[Path]:
        return paths | {folder for path in paths for folder in path.parents if folder.is_relative_to(root)} - {root}

    for name in large:
        yield f"Debian package {name}", with_folders(set(packages[name]))
    yield "Debian packages", with_folders(set(root.rglob("*")).difference(*(packages[name] for name in large)))


if __name__ == "__main__":
    root, out = map(Path, sys.argv[1:])
    # Files of the store are read-only; in an image they are writable for their owner, as a distribution has them
    write_layers(layers(root), root, out, more=stat.S_IWUSR)
