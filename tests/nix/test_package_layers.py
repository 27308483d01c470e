"""The layers that are made of a tree of Debian packages' files (nix/packages/debian/package_layers.py)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from aikit_nix.base import data

SCRIPTS = (data.NIX / "packages/debian/package_layers.py", data.NIX / "image/folder_layer.py")
STATUS = "var/lib/dpkg/status.d"
LARGE = 33 << 20


def tree(folder: Path, files: dict[str, int]) -> Path:
    """Files of these sizes, as the store has them, each of the package that its name begins with; and a link to the last."""
    root = folder / "root"
    (root / STATUS).mkdir(parents=True)
    for path, size in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            out.truncate(size)
        file.chmod(0o444)
        with (root / STATUS / f"{file.name.split('.')[0]}.md5sums").open("a") as listed:
            listed.write(f"{'0' * 32}  {path}\n")
    (root / "usr/lib/link.so").symlink_to("big.so")
    (root / "usr/lib").chmod(0o555)
    return root


def layers(root: Path, out: Path) -> list[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(what it is called, its entries by name) of each layer."""
    with tempfile.TemporaryDirectory() as folder:  # one beside the other, as in the build
        script, _ = [shutil.copy(script, folder) for script in SCRIPTS]
        subprocess.run([sys.executable, "-I", script, root, out], check=True)
    described = json.loads((out / "layers.json").read_text())
    assert {file.name for file in out.iterdir()} == {"layers.json", *(each["digest"][7:] for each in described)}
    found = []
    for layer in described:
        file = out / layer["digest"].removeprefix("sha256:")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
        assert file.stat().st_size == layer["size"]
        with tarfile.open(file) as archive:
            found.append((layer["created_by"], {entry.name: entry for entry in archive}))
    return found


def test_a_large_package_has_a_layer_of_its_own(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {"usr/lib/big.so": LARGE, "usr/share/bigger.1": LARGE, "usr/share/bigger.2": 1, "usr/lib/small.so": 5}
    )
    (one, bigger), (two, big), (rest, others) = layers(root, tmp_path / "out")
    assert (one, two, rest) == ("Debian package bigger", "Debian package big", "Debian packages")
    assert list(bigger) == ["usr", "usr/share", "usr/share/bigger.1", "usr/share/bigger.2"]
    assert list(big) == ["usr", "usr/lib", "usr/lib/big.so"]
    assert "usr/lib/small.so" in others
    assert not {*bigger, *big} & {name for name, entry in others.items() if entry.isfile()}


def test_the_layers_hold_the_tree(tmp_path: Path) -> None:
    root = tree(tmp_path, {"usr/lib/big.so": LARGE, "usr/lib/small.so": 5})
    together: dict[str, tarfile.TarInfo] = {}
    for _, entries in layers(root, tmp_path / "out"):
        together |= entries
    assert sorted(together) == sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert together["usr/lib/link.so"].linkname == "big.so"
    for name, entry in together.items():
        assert (entry.uid, entry.gid, entry.mtime, entry.uname) == (0, 0, 1, "root"), name
        if not entry.issym():
            assert entry.mode == (root / name).stat().st_mode & 0o7777 | 0o200, name


def test_they_depend_on_the_tree_alone(tmp_path: Path) -> None:
    files = {"usr/lib/big.so": LARGE, "usr/lib/small.so": 5}
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        root = tree(tmp_path / name, files)
        os.utime(root / "usr/lib/small.so", (1, 1))
        layers(root, tmp_path / name / "out")
        digests.append((tmp_path / name / "out/layers.json").read_text())
        files = dict(reversed(files.items()))
    assert digests[0] == digests[1]


def test_an_update_of_one_package_leaves_the_large_ones_alone(tmp_path: Path) -> None:
    digests = []
    for name, size in (("before", 5), ("after", 6)):
        (tmp_path / name).mkdir()
        root = tree(tmp_path / name, {"usr/lib/big.so": LARGE, "usr/lib/small.so": size})
        layers(root, tmp_path / name / "out")
        digests.append([each["digest"] for each in json.loads((tmp_path / name / "out/layers.json").read_text())])
    (big, before), (same, after) = digests
    assert big == same
    assert before != after
