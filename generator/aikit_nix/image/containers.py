"""The container engines of this machine: which of them works, and how it loads and runs an image."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from aikit_nix.base import process
from aikit_nix.base.errors import error


@dataclass(frozen=True)
class ContainerEngine:
    """A program that takes images. `works` is a command that fails where it cannot, `load` takes on stdin what the
    stream script writes."""

    program: str
    works: tuple[str, ...]
    load: tuple[str, ...]
    stream: tuple[str, ...] = ()  # options of the flake's stream script
    gpu: str = ""  # the option that gives a container the GPUs; empty where it runs none

    def problem(self) -> str | None:
        """Why it cannot be used here, or None: docker may be there and its daemon not."""
        if not shutil.which(self.program):
            return f"{self.program} is not installed"
        if process.succeeds([self.program, *self.works]):
            return None
        return f"{self.program} does not work (`{' '.join((self.program, *self.works))}` says why)"

    def run(self, name: str, port: int, arguments: tuple[str, ...], *, gpu: bool) -> list[str]:
        """The command that runs an image, as little as it needs, on a port of this machine's loopback."""
        words = [self.program, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108
        words += [self.gpu] if gpu else []
        return [*words, "--publish", f"127.0.0.1:{port}:8080", name, *arguments]


DOCKER = ContainerEngine("docker", ("info",), ("load",), gpu="--gpus=all")
PODMAN = ContainerEngine("podman", ("info",), ("load",), gpu="--device=nvidia.com/gpu=all")
NERDCTL = ContainerEngine("nerdctl", ("info",), ("load",), gpu="--gpus=all")
# containerd's own, which runs nothing for people
CTR = ContainerEngine("ctr", ("version",), ("images", "import", "-"), ("--oci",))
ENGINES = {engine.program: engine for engine in (DOCKER, PODMAN, NERDCTL, CTR)}


def choose(named: str | None, among: tuple[ContainerEngine, ...]) -> ContainerEngine | None:
    """The engine that is named, else the first that works; None where none does. Raises AikitError for a named one."""
    if named:
        if problem := ENGINES[named].problem():
            raise error(problem, code="no-engine")
        return ENGINES[named]
    return next((engine for engine in among if not engine.problem()), None)


def none_works(among: tuple[ContainerEngine, ...]) -> str:
    """What stands in the way of each of some engines of which none works."""
    absent = [engine.program for engine in among if not shutil.which(engine.program)]
    words = [problem for engine in among if engine.program not in absent and (problem := engine.problem())]
    if absent:
        words.append(f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed")
    return "; ".join(words)
