"""Bundles of one large model beside `cp` of it, in one run, as ratios. AIKIT_BENCH_MIB is the model's size."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support import fresh

MIB = int(os.environ.get("AIKIT_BENCH_MIB", "2048"))
_ROUNDS = 3
_CLI = (sys.executable, "-m", "aikit_nix.cli")

Number = tuple[str, float, str, float | None]


def measure(folder: Path, generate: Callable[[Path, str], Path]) -> Iterator[Number]:
    """Name, value, unit, and the most that the value may be; `generate` writes the flake of a model."""
    if reason := fresh.problem():
        sys.stderr.write(f"bundles are not measured: {reason}\n")
        return
    model = folder / "big.gguf"
    with model.open("wb") as file:
        for _ in range(MIB):
            file.write(os.urandom(1 << 20))
    flake = generate(folder, model.name)
    bundle, copy, machine = folder / "bundle", folder / "copy", folder / "machine"
    # What goes into the store else would be part of the first round
    run(*_CLI, "bundle", str(bundle), "--flake", str(flake))
    took: dict[str, list[float]] = {"cp": [], "bundle": [], "again": [], "unbundle": []}
    for _ in range(_ROUNDS):
        shutil.rmtree(bundle)
        took["cp"].append(elapsed("cp", str(model), str(copy)))
        copy.unlink()
        took["bundle"].append(elapsed(*_CLI, "bundle", str(bundle), "--flake", str(flake)))
        took["again"].append(elapsed(*_CLI, "bundle", str(bundle), "--flake", str(flake)))
        took["unbundle"].append(elapsed(*fresh.argv(machine, [*_CLI, "unbundle", bundle])))
        shutil.rmtree(machine)
    cp, once, again, back = (statistics.median(each) for each in took.values())
    yield f"cp, {MIB} MiB", cp, "s", None
    yield f"bundle {MIB} MiB, to cp", once / cp, "times", None
    yield "bundle again, nothing new", again, "s", None
    yield f"unbundle {MIB} MiB, to cp", back / cp, "times", None


def elapsed(*argv: str) -> float:
    """The seconds that a program takes until its files are on the disk."""
    os.sync()
    started = time.perf_counter()
    run(*argv)
    os.sync()
    return time.perf_counter() - started


def run(*argv: str) -> None:
    """A program that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
