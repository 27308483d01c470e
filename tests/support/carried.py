"""The small C programs that flakes carry as text: unpacked to be run, and compiled again to be compared."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from aikit_nix.base import data

SYSTEMS = ("x86_64-linux", "aarch64-linux")
EMULATOR = shutil.which("qemu-aarch64-static")
_COMPILER = "12.2.0"  # Debian 12's


def content(text: Path, name: str) -> bytes:
    """The program of that name in a text."""
    lines = text.read_text().splitlines()
    assert (lines[0], lines[-1]) == (f"begin-base64 644 {name}.tar.gz", "====")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode("".join(lines[1:-1])))) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.mtime, member.uid) == (name, 0o755, 1, 0)
        stream = archive.extractfile(member)
        assert stream
        return stream.read()


def runnable(text: Path, folder: Path, name: str) -> list[str]:
    """How to run the program in SYSTEM.txt, by its emulator where it needs one."""
    program = folder / name
    program.write_bytes(content(text, name))
    program.chmod(0o755)
    if text.stem == "x86_64-linux":
        return [str(program)]
    if not EMULATOR:
        pytest.skip("no qemu-aarch64-static (Debian package qemu-user-static)")
    return [EMULATOR, str(program)]


def is_what_compiles(text: Path, source: str, name: str) -> bool:
    """Whether SYSTEM.txt is what a source below nix/ compiles to, bit for bit."""
    compiler = f"{text.stem.removesuffix('-linux')}-linux-gnu-gcc"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    if version != _COMPILER:
        pytest.skip(f"the texts are gcc {_COMPILER}'s, this is {version}")
    argv: list[str | Path] = [data.NIX / "start/build.sh", text.stem, source, name]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout == text.read_text()
