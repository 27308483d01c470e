"""What the runtimes ask of a processor, and whether this machine's has it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from aikit_nix.aikitfile.types import Runtime
from aikit_nix.base.errors import Diagnostic, Severity

# What ggml's CPU types sandybridge, haswell and skylakex ask for (ggml/src/ggml-cpu/CMakeLists.txt of llama.cpp), in
# the words of /proc/cpuinfo; best first.
FLAGS: dict[str, tuple[str, ...]] = {
    Runtime.AVX512: ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma", "f16c", "bmi2", "avx"),
    Runtime.AVX2: ("avx2", "fma", "f16c", "bmi2", "avx"),
    Runtime.AVX: ("avx",),
}
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
