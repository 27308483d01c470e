"""Building the image of a model beside copying and hashing the same file, in one run: as ratios, bytes and memory.

AIKIT_BENCH_MIB is the model's size. Beside it what others make of the model: plain dockerTools where NIXPKGS names a
nixpkgs checkout, umoci and buildah where they are installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nixpkgs import toolchain

MIB = int(os.environ.get("AIKIT_BENCH_MIB", "1024"))
# A file that was written a moment ago is not known by its times, and is read anew each time.
_SETTLED = 3  # seconds
_FORMS = ("oci", "image", "stream")

Number = tuple[str, float, str, float | None, str]

# Starts a program and writes what it took. A process of its own, as a program's memory begins with that of who starts it.
_METER = """
import json, os, sys, time
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
seconds = time.perf_counter() - started
io = dict(line.split(": ") for line in open("/proc/self/io"))
json.dump([seconds, int(io["rchar"]), int(io["wchar"]), usage.ru_maxrss * 1024], open(sys.argv[1], "w"))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""

_DOCKER_TOOLS = """
  {{ nixpkgs }}:
  let
    pkgs = import nixpkgs {{ system = "x86_64-linux"; config = {{ }}; overlays = [ ]; }};
    image = {{
      name = "model";
      config.Env = [ "MODEL=${{builtins.storePath "{model}"}}" "TEXT={text}" ];
    }};
  in
  {{
    stream = pkgs.dockerTools.streamLayeredImage image;
    image = pkgs.dockerTools.buildLayeredImage (image // {{ compressor = "none"; }});
  }}
"""


_CAT = {"stream": " into cat"}


@dataclass(frozen=True)
class Cost:
    """What a program took with all that it started: seconds, bytes that went through read and write (of the disk or
    not), and the most memory that one process had."""

    seconds: float
    read: int
    written: int
    memory: int

    @property
    def bytes(self) -> str:
        read, written, memory = (value / 1e6 for value in (self.read, self.written, self.memory))
        return f"read {read:,.0f} MB, written {written:,.0f} MB, memory {memory:.0f} MB"

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.read + other.read,
            self.written + other.written,
            max(self.memory, other.memory),
        )


def measure(folder: Path) -> Iterator[Number]:
    """Name, value, unit, what it should not be above, and what else was seen."""
    copies = 4 if shutil.which("buildah") else 3
    if shutil.disk_usage(folder).free < (needed := (copies * MIB + 1024) << 20):
        sys.stderr.write(f"image is not measured: {needed / 1e9:.0f} GB have to be free in {folder}\n")
        return
    bench = _Bench(folder)
    try:
        yield from bench.ours()
        yield from bench.docker_tools()
        yield from bench.tools()
    finally:
        bench.clean()


class _Bench:
    """One model, and what is made of it. Its first bytes are changed to have a new one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.flake = folder, folder / "m.gguf", folder / "flake"
        self.copied: Cost
        self.made: set[str] = set()  # what takes room in the store

    def ours(self) -> Iterator[Number]:
        with self.model.open("wb") as out:
            for _ in range(MIB):
                out.write(os.urandom(1 << 20))  # weights do not compress
        self.generate("first")
        self.build("manifest")  # the base, as after any earlier build
        hashed = self.copy_and_hash()
        yield f"cp, {MIB} MiB", self.copied.seconds, "s", None, ""
        yield "SHA-256 of it", hashed.seconds / self.copied.seconds, "times cp", None, ""
        for form in _FORMS:
            self.renew()
            first, built = self.generate("first"), self.build(form)
            yield self.number(f"new model, gen + {form}", first + built, f"gen {first.seconds:.1f} s, ", 1.5)
            if form == "image":
                self.clean()
                self.generate("first")  # the model is back
            again, built = self.generate("second"), self.build(form)
            name, gen = f"changed config, gen + {form}", f"gen {again.seconds:.1f} s, "
            if form == "image":  # has all models in it
                yield self.number(name, again + built, gen)
            else:
                yield name, (again + built).seconds, "s", 1.5, gen + (again + built).bytes
            if form == "stream":
                yield self.number("stream of it into cat", self.cost([f"{self.result} | cat > /dev/null"]))
            self.clean()

    def docker_tools(self) -> Iterator[Number]:
        """The model as one store path in an image of dockerTools, which is all that they know of it."""
        try:
            nixpkgs = toolchain.on_debian(self.folder / "nixpkgs")
        except toolchain.UnavailableError as reason:
            sys.stderr.write(f"dockerTools are not measured: {reason}\n")
            return
        self.renew()
        added = self.cost(["nix-store", "--add-fixed", "sha256", str(self.model)], nixpkgs.env)
        with self.model.open("rb") as file:
            model = _store_path(self.model.name, hashlib.file_digest(file, "sha256").hexdigest())
        self.made.add(model)
        self.realise(nixpkgs, "stream", model, "warm")
        for form in ("image", "stream"):
            yield self.number(
                f"new model, dockerTools, {form}{_CAT.get(form, '')}",
                added + self.realise(nixpkgs, form, model, "first"),
            )
            yield self.number(
                f"changed config, dockerTools, {form}{_CAT.get(form, '')}", self.realise(nixpkgs, form, model, "second")
            )
        self.clean()

    def realise(self, nixpkgs: toolchain.Nixpkgs, form: str, model: str, text: str) -> Cost:
        (drv,) = nixpkgs.instantiate(_DOCKER_TOOLS.format(model=model, text=text), form)
        cost = self.cost(["nix-store", "--realise", drv], nixpkgs.env)
        result = nixpkgs.run(["nix-store", "--query", "--outputs", drv]).strip()
        self.made.add(result)
        if form == "stream":
            return cost + self.cost([f"{result} | cat > /dev/null"])
        _delete([result])
        return cost

    def tools(self) -> Iterator[Number]:
        """The model put into an OCI layout by others, uncompressed where they can."""
        layout = self.folder / "others"
        if shutil.which("umoci"):
            argv = ["umoci", "--log=error", "init", "--layout", str(layout)]
            subprocess.run(argv, check=True)
            subprocess.run(["umoci", "new", "--image", f"{layout}:m"], check=True)
            raw = ["--compress=none"] if "--compress" in _help("umoci", "insert") else []
            argv = ["umoci", "insert", *raw, "--image", f"{layout}:m", str(self.model), "/models/m.gguf"]
            yield self.number(f"umoci insert{'' if raw else ' (gzip)'}", self.cost(argv))
            shutil.rmtree(layout)
        if shutil.which("buildah"):
            storage = ["buildah", f"--root={self.folder}/b", f"--runroot={self.folder}/r", "--storage-driver=vfs"]
            script = "c=$($BUILDAH from scratch) && $BUILDAH copy -q $c $MODEL /models/ && $BUILDAH commit -q --disable-compression $c $TO"
            env = {"BUILDAH": " ".join(storage), "MODEL": str(self.model), "TO": f"oci:{layout}:m"}
            yield self.number("buildah copy and commit", self.cost([script], env))

    def copy_and_hash(self) -> Cost:
        """What it takes to hash the model; what it takes to copy it becomes `copied`."""
        copy = self.folder / "copy"
        os.sync()
        self.copied = self.cost(["cp", str(self.model), str(copy)])
        copy.unlink()
        hashing = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
        return self.cost([sys.executable, "-c", hashing, str(self.model)])

    def renew(self) -> None:
        """Another model of the same size, and what it takes to copy it now."""
        with self.model.open("r+b") as file:
            file.write(os.urandom(16))
        self.copy_and_hash()
        time.sleep(_SETTLED)
        os.sync()  # the next one's disk is its own

    def generate(self, text: str) -> Cost:
        aikitfile = self.folder / "aikitfile.yaml"
        aikitfile.write_text(
            "apiVersion: v1alpha1\nruntime: avx2\nmodels:\n  - {name: m, source: m.gguf}\n"
            f"config: '- {{name: {text}, parameters: {{model: m.gguf}}}}'\n"
        )
        argv = [sys.executable, "-m", "aikit_nix.cli", "gen", str(aikitfile), "--packages", "debian"]
        cost = self.cost([*argv, "-o", str(self.flake)])
        self.made |= {_store_path(model["name"], model["sha256"]) for model in self.models()}
        return cost

    def models(self) -> list[dict[str, Any]]:
        planned: list[dict[str, Any]] = json.loads((self.flake / "aikit/plan.json").read_text())["models"]
        return planned

    def build(self, form: str) -> Cost:
        """A form of the image, whose store path becomes `result`."""
        link = self.folder / "result"
        output = "archive" if form == "image" else form
        cost = self.cost(["nix", "build", f"path:{self.flake}#{output}", "--out-link", str(link)])
        self.result = link.resolve()
        link.unlink()
        if form == "oci":
            blobs = [self.result / "blobs" / model["layer"]["digest"].replace(":", "/") for model in self.models()]
            self.made |= {str(blob.readlink()) for blob in blobs}
        if form == "image":
            self.made.add(str(self.result))
        return cost

    def number(self, name: str, cost: Cost, more: str = "", aim: float | None = None) -> Number:
        return name, cost.seconds / self.copied.seconds, "times cp", aim, f"{cost.seconds:.1f} s, {more}{cost.bytes}"

    def cost(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
        """A program, or a line of shell, that must succeed."""
        shell = ["bash", "-e", "-o", "pipefail", "-c"] if len(argv) == 1 else []
        said = self.folder / "meter.json"
        done = subprocess.run(
            [sys.executable, "-IS", "-c", _METER, str(said), *shell, *argv],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(done.stderr)
        return Cost(*json.loads(said.read_text()))

    def clean(self) -> None:
        """Delete what takes room in the store, with all that refers to it."""
        there = [path for path in self.made if Path(path).exists()]
        self.made.clear()
        _delete(there)


def _delete(paths: Sequence[str]) -> None:
    if paths:
        argv = ["nix-store", "--query", "--referrers-closure", *paths]
        using = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        subprocess.run(["nix-store", "--delete", "--ignore-liveness", *using], check=True, capture_output=True)


def _store_path(name: str, sha256: str) -> str:
    from aikit_nix.nix import store

    return str(store.store_path(name, sha256))


def _help(*argv: str) -> str:
    return subprocess.run([*argv, "--help"], capture_output=True, text=True, check=False).stdout
