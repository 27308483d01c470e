"""What images are made for: systems, architectures, runtimes, and what a runtime asks of a processor.

nix/targets.json is the table, which Nix reads, too.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from aikit_nix.base import data
from aikit_nix.base.errors import Diagnostic, Severity

_TABLE = json.loads((data.NIX / "targets.json").read_text(encoding="utf-8"))

# What Debian, Go and OCI call an architecture, by Nix system (`x86_64-linux`).
ARCHITECTURES: dict[str, str] = _TABLE["architectures"]

# What ggml's CPU types sandybridge, haswell and skylakex ask for (ggml/src/ggml-cpu/CMakeLists.txt of llama.cpp), in
# the words of /proc/cpuinfo; best first.
FLAGS: dict[str, tuple[str, ...]] = {runtime: tuple(flags) for runtime, flags in _TABLE["processors"].items()}


class Runtime(StrEnum):
    """The instruction set or accelerator that an image is for. `cpu` is no word of an aikitfile: any processor."""

    AVX = "avx"
    AVX2 = "avx2"
    AVX512 = "avx512"
    CUDA = "cuda"
    ROCM = "rocm"
    VULKAN = "vulkan"
    CPU = "cpu"


CPUINFO = Path("/proc/cpuinfo")


def missing_flags(runtime: str, cpuinfo: Path = CPUINFO) -> list[str]:
    """The instruction sets that a runtime needs and this processor lacks.

    None where that cannot be known: on another system than Linux, on another processor than x86-64.
    """
    have = set(_flags(cpuinfo))
    return [flag for flag in FLAGS.get(runtime, ()) if flag not in have] if have else []


def best_runtime(cpuinfo: Path = CPUINFO) -> str | None:
    """The best runtime that this processor can run; None where there is none, or it cannot be known."""
    have = set(_flags(cpuinfo))
    return next((runtime for runtime, needed in FLAGS.items() if have.issuperset(needed)), None)


def warnings(runtimes: Mapping[str, str], cpuinfo: Path = CPUINFO) -> Iterator[Diagnostic]:
    """For who builds an image on this machine that it could not start: `runtimes` by Nix system (`x86_64-linux`)."""
    runtime = runtimes.get(f"{platform.machine()}-linux")
    if runtime and (missing := missing_flags(runtime, cpuinfo)):
        best = best_runtime(cpuinfo)
        instead = f"`--runtime {best}`" if best else "no runtime of an aikitfile"
        yield Diagnostic(
            Severity.WARNING,
            "processor",
            f"this machine could not start the image: its processor lacks {', '.join(missing)}, which {runtime} needs;"
            f" {instead} would run here",
        )


def _flags(cpuinfo: Path) -> Iterator[str]:
    """Nothing where the file is not there or not x86's."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("flags"):
            yield from line.partition(":")[2].split()
            return
