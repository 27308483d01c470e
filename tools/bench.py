"""Measures what the project promises: `make bench [PART…]`. It says which aims are missed, and fails for none, but where a
part cannot be measured to its end.

The aims are for 2 cores with nothing else running.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import bench_bundle
import bench_clients
import bench_image
import bench_localai
import bench_push
import bench_transfer
import gemma
from nixpkgs import toolchain
from support import container, debian_lock, nix_env, tiny_gguf
from support.image import unpack

RUNTIMES = ("avx", "avx2", "avx512")


@dataclass(frozen=True)
class Result:
    """One number, what it should not be above (None: it is only shown), and what else is worth saying."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    more: str = ""

    @property
    def missed(self) -> bool:
        return self.aim is not None and self.value > self.aim


def gen(folder: Path) -> Iterator[Result]:
    """The generator alone, each run in a new process."""
    for count, bound in ((10, 0.25), (100, 0.5)):
        models = "".join(
            f"  - {{name: m{index}, source: 'https://example.com/m{index}.gguf', sha256: '{index:064x}'}}\n"
            for index in range(count)
        )
        aikitfile = folder / f"{count}.yaml"
        aikitfile.write_text(f"apiVersion: v1alpha1\nmodels:\n{models}")
        argv = [sys.executable, "-m", "aikit_nix.cli", "gen", str(aikitfile), "--packages", "debian"]
        argv += ["-o", str(folder / f"gen-{count}")]
        yield Result(f"gen, {count} models", fastest(argv), "s", bound)


def check(folder: Path) -> Iterator[Result]:
    """`check` on 100 models (an image has no more), each with a template and a config entry, beside importing its libraries."""
    models, config = "", ""
    for index in range(100):
        models += f"  - name: m{index}\n    source: https://example.com/m{index}.gguf\n    sha256: '{index:064x}'\n"
        models += f"    promptTemplates:\n      - name: t{index}\n        template: |\n          {{{{.Input}}}}\n"
        config += (
            f"  - name: m{index}\n    parameters:\n      model: m{index}.gguf\n    template:\n      chat: t{index}\n"
        )
    aikitfile = folder / "100.yaml"
    aikitfile.write_text(f"apiVersion: v1alpha1\nmodels:\n{models}config: |\n{config}")
    libraries = fastest([sys.executable, "-c", "import click, yaml"])
    checked = fastest([sys.executable, "-m", "aikit_nix.cli", "check", str(aikitfile)])
    yield Result("check, 100 models", checked, "s")
    yield Result("check, 100 models, to importing click and yaml", checked / libraries, "times", 3)


def image(folder: Path) -> Iterator[Result]:
    """The image of a model of 1 GiB (AIKIT_BENCH_MIB) on the Debian packages, beside cp, SHA-256 and other builders."""
    for number in bench_image.measure(folder):
        yield Result(*number)


def speed(folder: Path) -> Iterator[Result]:
    """Tokens a second of each runtime that this machine can run, on the demo's model if it is there."""
    model = folder / "speed.gguf"
    if cached := gemma.cached():
        shutil.copyfile(cached, model)
    else:
        tiny_gguf.make(model)
    flags = Path("/proc/cpuinfo").read_text()
    flake = generate(folder, model.name)
    for runtime in RUNTIMES:
        if {"avx512": "avx512bw"}.get(runtime, runtime) not in flags:
            continue
        root = folder / f"root-{runtime}"
        read = unpack(Path(nix_build(flake, f"image-{runtime}")), root)
        yield Result(f"{runtime}: image without models", (read.size - model.stat().st_size) / 1e6, "MB", 250)
        with container.start(read, root) as server:
            body = {"prompt": "word " * 300, "max_tokens": 64, "temperature": 0, "ignore_eos": True}
            timings = server.ask("/v1/completions", body)["timings"]
        yield Result(f"{runtime}: prompt", timings["prompt_per_second"], "tokens/s")
        yield Result(f"{runtime}: generation", timings["predicted_per_second"], "tokens/s")
        shutil.rmtree(root)


def clients(folder: Path) -> Iterator[Result]:
    """1, 4 and 16 clients at once of the demo's model if it is there, else of a tiny one."""
    model = folder / "m.gguf"
    if cached := gemma.cached():
        shutil.copyfile(cached, model)
    else:
        tiny_gguf.make(model)
    read = unpack(Path(nix_build(generate(folder, model.name))), folder / "root")
    for number in bench_clients.measure(read, folder / "root", f"/models/{model.name}"):
        yield Result(*number)


def localai(folder: Path) -> Iterator[Result]:
    """LocalAI compiled from source, where NIXPKGS names a nixpkgs checkout (a first run takes an hour)."""
    try:
        for number in bench_localai.measure(folder, gemma.cached()):
            yield Result(*number)
    except toolchain.UnavailableError as reason:
        sys.stderr.write(f"localai is not measured: {reason}\n")


def transfer(folder: Path) -> Iterator[Result]:
    """Fetching a model of 2 GiB (AIKIT_BENCH_MIB) beside curl and Nix's own ways, and verifying it."""
    for number in bench_transfer.measure(folder):
        yield Result(*number)


def bundle(folder: Path) -> Iterator[Result]:
    """A bundle with a model of 2 GiB (AIKIT_BENCH_MIB), beside cp."""
    for number in bench_bundle.measure(folder, generate):
        yield Result(*number)


def push(folder: Path) -> Iterator[Result]:
    """Pushes, beside curl."""
    for number in bench_push.measure(folder):
        yield Result(*number)


def debian_images(folder: Path) -> Iterator[Result]:
    """Each runtime of the Debian packages: the image's size, and its build where the .debs are in the store already."""
    tiny_gguf.make(folder / "tiny.gguf")
    flake = generate(folder, "tiny.gguf")
    for system, runtime in (
        *(("x86_64-linux", runtime) for runtime in ("avx2", "cpu", "cuda", "vulkan", "rocm")),
        *(("aarch64-linux", runtime) for runtime in ("cpu", "cuda", "vulkan")),
    ):
        output = f"packages.{system}.image-{runtime}"
        read = unpack(Path(nix_build(flake, f"{output}.oci")))
        size = read.size - (folder / "tiny.gguf").stat().st_size
        yield Result(f"debian, {runtime} on {system}: image without models", size / 1e6, "MB")
        again = made(flake, f"{output}.oci", (f"-debian-{runtime}.drv", f"-debian-{runtime}-layers.drv"))
        seconds = elapsed(functools.partial(call, ["nix-store", "--realise", "--check", *again]))
        yield Result(f"debian, {runtime} on {system}: unpacking and layers", seconds, "s")


def made(flake: Path, output: str, ends: tuple[str, ...]) -> list[str]:
    """The derivations with these ends of names that one of the flake's packages is made by."""
    argv = ["nix", "eval", "--raw", f"path:{flake}#{output}.drvPath"]
    drv = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    argv = ["nix-store", "--query", "--requisites", drv]
    needed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return [path for path in needed if path.endswith(ends)]


BENCHMARKS = (gen, check, image, transfer, bundle, push, speed, clients, debian_images, localai)


def generate(folder: Path, model: str) -> Path:
    """A flake for one local model; its folder."""
    name = Path(model).stem
    (folder / "aikitfile.yaml").write_text(f"apiVersion: v1alpha1\nmodels:\n  - {{name: {name}, source: {model}}}\n")
    return write_flake(folder)


def write_flake(folder: Path) -> Path:
    """`aikit-nix gen` on the folder's aikitfile."""
    argv = [sys.executable, "-m", "aikit_nix.cli", "gen", str(folder / "aikitfile.yaml"), "--packages", "debian"]
    call([*argv, "-o", str(folder / "flake")])
    return folder / "flake"


def nix_build(flake: Path, output: str = "default") -> str:
    """The store path of one of the flake's packages."""
    argv = ["nix", "build", f"path:{flake}#{output}", "--out-link", str(flake.parent / f"result-{output}")]
    call(argv)
    return str((flake.parent / f"result-{output}").resolve())


def call(argv: list[str], output: Path | None = None) -> None:
    """Run a program. Raises CalledProcessError, after showing what it said."""
    with (output or Path(os.devnull)).open("wb") as stdout:
        done = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        done.check_returncode()


def elapsed(action: Callable[[], object]) -> float:
    """The seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def fastest(argv: list[str], times: int = 9) -> float:
    """The seconds of a program's fastest run: what it takes when nothing else does."""
    return min(elapsed(lambda: call(argv)) for _ in range(times))


def main() -> None:
    """Run all benchmarks, or those named on the command line."""
    os.environ.update(nix_env.environment())
    # an installed package has its bytecode, as its libraries have
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = sys.argv[1:]
    failed: list[str] = []
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    table = Table("what", "measured", "aim: at most", "", "", box=None, padding=(0, 2), header_style="bold")
    for benchmark in BENCHMARKS:
        if wanted and benchmark.__name__ not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="aikit-nix-bench-") as scratch, console.status(benchmark.__name__):
            os.environ["PYTHONPYCACHEPREFIX"] = str(Path(scratch) / "bytecode")
            if lock := debian_lock.usable(Path(scratch), console.print):
                os.environ["AIKIT_DEBIAN_LOCK"] = str(lock)
            try:
                for result in benchmark(Path(scratch)):
                    aim = "" if result.aim is None else f"{result.aim:g} {result.unit}"
                    measured = f"{result.value:.3g} {result.unit}"
                    table.add_row(result.name, measured, aim, "aim missed" if result.missed else "", result.more)
            except subprocess.CalledProcessError as problem:
                failed.append(f"{benchmark.__name__}: `{problem.cmd[0]}` failed with status {problem.returncode}")
    console.print(table)
    if failed:
        sys.exit("error: " + "; ".join(failed))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
