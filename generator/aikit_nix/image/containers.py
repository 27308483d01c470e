"""The container engines of this machine: which of them works, and how it loads and runs an image."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from aikit_nix.base import process
from aikit_nix.base.errors import error


@dataclass(frozen=True)
class Engine:
    """A program that takes images. `works` is a command that fails where it cannot, `load` takes a docker-archive on stdin."""

    program: str
    works: tuple[str, ...]
    load: tuple[str, ...]
    gpu: str = ""  # the option that gives a container the GPUs; empty where it runs none

    def is_there(self) -> bool:
        """Whether it is installed and works: docker may be there and its daemon not."""
        return shutil.which(self.program) is not None and process.succeeds([self.program, *self.works])

    def run(self, name: str, port: int, arguments: tuple[str, ...], *, gpu: bool) -> list[str]:
        """The command that runs an image, as little as it needs, on a port of this machine's loopback."""
        words = [self.program, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108
        words += [self.gpu] if gpu else []
        return [*words, "--publish", f"127.0.0.1:{port}:8080", name, *arguments]


DOCKER = Engine("docker", ("info",), ("load",), "--gpus=all")
PODMAN = Engine("podman", ("info",), ("load",), "--device=nvidia.com/gpu=all")
NERDCTL = Engine("nerdctl", ("info",), ("load",), "--gpus=all")
# containerd's own, which runs nothing for people
CTR = Engine("ctr", ("version",), ("images", "import", "-"))
ENGINES = {engine.program: engine for engine in (DOCKER, PODMAN, NERDCTL, CTR)}


def choose(named: str | None, among: tuple[Engine, ...]) -> Engine | None:
    """The engine that is named, else the first that works; None where none does. Raises AikitError for a named one."""
    if named:
        engine = ENGINES[named]
        if not engine.is_there():
            command = " ".join((engine.program, *engine.works))
            raise error(f"{named} does not work here: `{command}` says why", code="no-engine")
        return engine
    return next((engine for engine in among if engine.is_there()), None)
