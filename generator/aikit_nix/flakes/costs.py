"""What a first build costs: the one table, which `gen`, README and docs use.

Measured with LocalAI 4.6 (minutes, two quiet cores; stable-diffusion.cpp's are 360 CPU seconds of 4.9) and 4.9 (megabytes of
sources in the Nix store, November 2026).
"""

from __future__ import annotations

from dataclasses import dataclass

from aikit_nix.flakes.plan import Engine, Packages, Plan


@dataclass(frozen=True)
class CompiledPart:
    """What is compiled: minutes on two cores for a CPU runtime, and megabytes of its sources in the store."""

    name: str
    minutes: int
    megabytes: int


# Go modules 216, npm packages 299, LocalAI itself 62.
SERVER = CompiledPart("LocalAI", 10, 577)
LLAMA_CPP = CompiledPart("llama.cpp", 6, 94)
STABLEDIFFUSION = CompiledPart("stable-diffusion.cpp", 3, 273)
# PyTorch and NVIDIA's libraries for it; minutes for one GPU architecture.
EXLLAMA2 = CompiledPart("ExLlamaV2", 5, 2568)
# CUDA's kernels are compiled anew for each architecture: of nixpkgs' own list (CUDA 12.9) unless the plan names some.
# Minutes of llama.cpp's for one, compiled to be slow, as the tests do: they take less than the real ones.
CUDA_MINUTES = 46
CUDA_ARCHITECTURES = 9


def parts(plan: Plan) -> tuple[CompiledPart, ...]:
    """What a plan's image is compiled from; empty where nothing is."""
    if plan.packages is Packages.DEBIAN:
        return ()
    if plan.engine is Engine.LLAMA_SERVER:
        return (LLAMA_CPP,)
    backends = {"stablediffusion": STABLEDIFFUSION, "exllama2": EXLLAMA2}
    return (SERVER, LLAMA_CPP, *(backends[name] for name in plan.backends))


def words(plan: Plan, missing: int) -> str:
    """For people; `missing` are the bytes of Debian packages to download. Empty where all is here."""
    if plan.packages is Packages.DEBIAN:
        if not missing:
            return ""
        size = missing / 1e6
        time = "seconds" if size < 50 else "a minute" if size < 400 else "minutes"
        return f"the first build downloads {size:.0f} MB of Debian packages and takes {time}"
    compiled = parts(plan)
    gpu = any(platform.default == "cuda" for platform in plan.systems.values())
    time = f"about {sum(part.minutes for part in compiled)} minutes on 2 cores"
    if gpu:
        count = len(plan.cudaCapabilities) or CUDA_ARCHITECTURES
        which = f"each of {count} CUDA architectures" if count > 1 else "one CUDA architecture"
        time += f", and at least {CUDA_MINUTES} more for {which}"
        time += "" if plan.cudaCapabilities else "; `--cuda-capability 8.6` compiles for that alone"
    names = [part.name for part in compiled]
    what = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    also = "" if gpu or plan.backends else "; `--packages debian` takes seconds"
    return (
        f"the first build compiles {what} from {sum(part.megabytes for part in compiled)} MB of sources ({time}){also}"
    )
