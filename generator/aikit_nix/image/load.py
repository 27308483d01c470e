"""An image into a container engine: the flake's stream script writes it into the engine's standard input.

Between the two pipes the kernel moves the bytes; they are counted here. What breaks off on either side ends the other,
and the archive's list of layers comes last, so that an engine never takes half an image.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from aikit_nix.base import console, process
from aikit_nix.base.errors import AikitError, error
from aikit_nix.image.containers import ContainerEngine
from aikit_nix.image.layout import Image

_AT_ONCE = 1 << 20  # bytes


def load(image: Image, stream: Path, engine: ContainerEngine) -> None:
    """Raises AikitError: what the engine or the stream said."""
    with (
        console.progress(1, image.size) as progress,
        progress.file(image.name, image.size) as bar,
        process.start([stream, *engine.stream], stderr=subprocess.PIPE) as source,
        process.start(
            [engine.program, *engine.load], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as target,
    ):
        assert source.stdout and source.stderr and target.stdin and target.stdout  # noqa: S101 (pipes, by start)
        _move(source.stdout.fileno(), target.stdin.fileno(), bar)
        source.stdout.close()
        target.stdin.close()
        said = target.stdout.read().decode(errors="replace")
        wrong = source.stderr.read().decode(errors="replace")
        if target.wait() != 0:
            # the stream's own complaint is then only that its reader went away
            raise process.failure([engine.program], target.returncode, said)
        if source.wait() != 0:
            raise error(f"the image was not written: {' '.join(wrong.split())}", code="stream")
    console.trace(said.strip())


def _move(source: int, target: int, bar: console.Bar) -> None:
    """All bytes from a pipe to another, until either end is closed."""
    try:
        while count := os.splice(source, target, _AT_ONCE):
            bar.advance(count)
    except BrokenPipeError:
        pass  # the engine's status says why


def is_loaded(image: Image, engine: ContainerEngine) -> bool:
    """Whether the engine has the image already."""
    try:
        said = process.run([engine.program, "image", "inspect", "--format", "{{.Id}}", image.name])
    except AikitError:
        return False
    return said.strip().removeprefix("sha256:") == image.config_digest.removeprefix("sha256:")
