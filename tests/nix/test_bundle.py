"""What nix/engines/localai/bundle.sh makes of a program: all its libraries come along but the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "nix/engines/localai/bundle.sh"


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def patchelf(*argv: str | Path) -> str:
    done = run("patchelf", *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Linked:
    """A program of this machine, made to need some libraries more; `folder` holds what it is found with."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "program"
        self.folder = folder / "libraries"
        self.out = folder / "out"
        self.folder.mkdir()
        # Bubblewrap needs libcap, which is not glibc's: any library will do.
        shutil.copy(str(shutil.which("bwrap")), self.program)
        listed = run("ldd", self.program).stdout.split()
        self.library = Path(listed[listed.index("libcap.so.2") + 2])
        patchelf("--set-rpath", self.folder, self.program)

    def needs(self, soname: str, *, there: bool) -> Path:
        patchelf("--add-needed", soname, self.program)
        library = self.folder / soname
        if there:
            shutil.copy(self.library, library)
            patchelf("--set-soname", soname, library)
        return library

    def bundle(self) -> subprocess.CompletedProcess[str]:
        return run("bash", BUNDLE, program=str(self.program), out=str(self.out), re2="/nowhere", NIX_STORE="/nix/store")


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    for program, package in (("patchelf", "patchelf"), ("bwrap", "bubblewrap"), ("ldd", "libc-bin")):
        if not shutil.which(program):
            pytest.skip(f"`{program}` is missing (Debian package {package})")
    return Linked(tmp_path)


def test_libraries_are_copied_and_found(linked: Linked) -> None:
    library = linked.needs("libother.so.1", there=True)
    done = linked.bundle()
    assert done.returncode == 0, done.stderr
    assert {"libother.so.1", "libcap.so.2"} <= {path.name for path in (linked.out / "lib").iterdir()}
    library.unlink()
    started = run(linked.out / "bin/program", "--version")
    assert started.stdout.startswith("bubblewrap "), started.stderr


def test_a_program_for_cuda_is_bundled_where_there_is_no_driver(linked: Linked) -> None:
    """It starts as soon as there is one, and finds cuBLAS where it is, which is too large to copy."""
    linked.needs("libcuda.so.1", there=False)
    linked.needs("libcublas.so.13", there=True)
    linked.needs("libcudart.so.13", there=True)
    done = linked.bundle()
    assert done.returncode == 0, done.stderr
    copied = {path.name for path in (linked.out / "lib").iterdir()}
    assert {"libcap.so.2", "libcudart.so.13"} <= copied
    assert not copied & {"libcuda.so.1", "libcublas.so.13"}
    program = linked.out / "bin/program"
    assert str(linked.folder) in patchelf("--print-rpath", program).split(":")

    assert "libcuda.so.1" in run(program, "--version").stderr
    driver = linked.folder.parent / "driver"
    driver.mkdir()
    shutil.copy(linked.library, driver / "libcuda.so.1")
    started = run(program, "--version", LD_LIBRARY_PATH=str(driver))
    assert started.stdout.startswith("bubblewrap "), started.stderr


@pytest.mark.parametrize("soname", ["libother.so.1", "libcudart.so.13"])
def test_any_other_missing_library_stops_the_build(linked: Linked, soname: str) -> None:
    linked.needs("libcuda.so.1", there=False)
    linked.needs(soname, there=False)
    done = linked.bundle()
    assert done.returncode != 0
    assert soname in done.stderr
    assert "libcuda.so" not in done.stderr
