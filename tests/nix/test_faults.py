"""A full disk, a killed load, a flipped bit: what goes wrong is said, nothing half is taken, and a rerun finishes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base import data
from aikit_nix.nix import store
from support import podman
from support.image import unpack
from support.library import Library, forget, model

SIZE = 8 << 20


@dataclass(frozen=True)
class Known:
    """A model of random bytes in the store."""

    plan: dict[str, Any]
    source: Path

    @property
    def path(self) -> Path:
        return store.store_path(self.plan["name"], self.plan["sha256"])

    def add(self) -> None:
        subprocess.run(["nix-store", "--add-fixed", "sha256", self.source], check=True, capture_output=True)


@pytest.fixture
def known(library: Library, tmp_path: Path) -> Iterator[Known]:
    made = Known(model(tmp_path, os.urandom(SIZE)), tmp_path / "tiny.gguf")
    yield made
    forget(made.path)


def flip(file: Path) -> None:
    """A bit in the middle of a file of the store."""
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.seek(SIZE // 2)
        (value,) = content.read(1)
        content.seek(SIZE // 2)
        content.write(bytes([value ^ 1]))
    file.chmod(0o444)


def said(*argv: str | Path) -> tuple[int, str]:
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


def test_a_flipped_bit_in_a_model_ends_the_stream(library: Library, known: Known, tmp_path: Path) -> None:
    script = library.build("stream", models=[known.plan])
    flip(known.path)
    status, error = said(script)
    assert status == 1
    assert error.startswith(f"error: the image is not complete: /models/tiny.gguf ({known.path}) gives sha256:")
    done = library.try_build("archive", models=[known.plan])
    assert done.returncode != 0
    assert "the image is not complete: /models/tiny.gguf" in done.stderr
    assert "hash mismatch" in library.try_build("oci", models=[known.plan]).stderr

    forget(known.path)
    known.add()
    assert unpack(library.build("default", models=[known.plan])).layers[0].digest == known.plan["layer"]["digest"]


def test_a_flipped_bit_in_a_models_layer_is_refused_and_repaired(
    library: Library, known: Known, tmp_path: Path
) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    layout = library.build("oci", models=[known.plan])
    digest = known.plan["layer"]["digest"].removeprefix("sha256:")
    blob = (layout / "blobs/sha256" / digest).readlink()
    flip(blob)
    with podman.storage() as engine:
        status, error = said(*engine.argv, "pull", f"oci:{layout}")
        assert status != 0
        assert digest in error
        assert engine.run("images", "--quiet") == ""
        assert said("nix-store", "--verify-path", blob)[0] != 0
        status, error = said("nix-store", "--repair-path", blob)
        assert status == 0, error
        engine.run("pull", f"oci:{layout}")


def test_podman_killed_in_mid_load(library: Library, known: Known) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    script = library.build("stream", models=[known.plan])
    archive = subprocess.run([script], capture_output=True, check=True).stdout
    with podman.storage("overlay" if os.geteuid() == 0 else "vfs") as engine:
        for taken in (SIZE // 2, SIZE + SIZE // 2, len(archive) - 20_000):
            with subprocess.Popen([*engine.argv, "load"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdin
                process.stdin.write(archive[:taken])
                process.stdin.flush()
                process.kill()
        assert engine.run("images", "--quiet") == ""
        done = subprocess.run([*engine.argv, "load"], input=archive, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(engine.run("images", "--quiet").split()) == 1


# Takes the folder, and the derivation and what it needs; the disk is full, and then it is not.
FULL = """
mount -t tmpfs -o size=1g tmpfs "$1"
store="$1/store" drv="$2"
shift 2
nix copy --no-check-sigs --to "$store" "$@"
nix copy --no-check-sigs --to "$store" --derivation "$drv"
used=$(df --output=used --block-size=1 "${store%/store}" | tail -n 1)
for spare in 20000000 500000000; do
  mount -o "remount,size=$((used + spare))" "${store%/store}"
  if out=$(nix-store --store "$store" --option sandbox-paths "" --option substitute false --realise "$drv"); then
    sha256sum < "$store$out"
  fi
done
"""


def test_a_full_disk_in_mid_build(library: Library, known: Known, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a disk of 20 MB needs root")
    plan = {"models": [known.plan]}
    argv = library.argv("nix-instantiate", "archive", **plan)
    drv = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    ours = library.build("archive", **plan)
    argv = ["nix-store", "--query", "--references", drv]
    references = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    argv = ["nix-store", "--realise", *(path for path in references if path.endswith(".drv"))]
    needed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    (tmp_path / "disk").mkdir()
    argv = ["unshare", "--mount", "bash", "-ec", FULL, "full", str(tmp_path / "disk"), drv, *needed]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error: the image is not complete: [Errno 28] No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == [hashlib.sha256(ours.read_bytes()).hexdigest(), "-"]


def test_a_full_disk_is_said_of_a_models_layer(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(bytes(SIZE))
    argv = [
        sys.executable,
        "-IB",
        str(data.NIX / "image/model_layer.py"),
        "layer",
        "/models/m.gguf",
        str(tmp_path / "m.gguf"),
    ]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == "error: the layer of /models/m.gguf is not complete: [Errno 28] No space left on device\n"
