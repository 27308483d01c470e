"""Pushes to Debian's registry on loopback, beside curl sending the same bytes to the same registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aikit_nix.image import layout
from support import layouts, registry
from support.registry import Registry
from support.wire import tap

SIZE = 1 << 30  # bytes
ROUNDS = 3
_PATH = "/models/big.gguf"

Number = tuple[str, float, str, float | None]


def measure(folder: Path) -> Iterator[Number]:
    """Name, value, unit, and the most that it may be."""
    if reason := registry.missing():
        sys.stderr.write(f"push is not measured: {reason}\n")
        return
    os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), REGISTRY_AUTH_FILE=str(folder / "auth.json"))
    (folder / "auth.json").write_text("{}")
    model = os.urandom(1 << 20) * (SIZE >> 20)
    full = layouts.make(folder / "full", {_PATH: model}, blobs=True)
    blob = layout.blob_path(full, layout.read_layout(full).layers[0].digest)
    times: dict[str, list[float]] = {"curl": [], "push": []}
    for _ in range(ROUNDS):
        for name, action in (("curl", _curl), ("push", _push)):
            with _empty_registry(folder) as server:
                started = time.perf_counter()
                action(server.address, full if name == "push" else blob)
                times[name].append(time.perf_counter() - started)
    curl, push = min(times["curl"]), min(times["push"])
    yield "curl, 1 GiB to the registry", curl, "s", None
    yield "push, a new model of 1 GiB", push, "s", None
    yield "push, a new model, to curl", push / curl, "times", 1.3
    with _empty_registry(folder) as server:
        _push(server.address, full)
        thin = layouts.make(folder / "thin", {_PATH: model}, b"another text")
        os.environ["XDG_CACHE_HOME"] = str(folder / "another-machine")
        with tap(server.address) as wire:
            started = time.perf_counter()
            _push(wire.address, thin)
            yield "push after a change of a text", time.perf_counter() - started, "s", None
            yield "the same, bytes on the wire", wire.total / 1000, "kB", 1000
    yield "push, peak memory", _peak(folder, full), "MB", 100


@contextmanager
def _empty_registry(folder: Path) -> Iterator[Registry]:
    """A registry with nothing in it, on a disk that is not busy with what was written before."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.sync()
        with registry.serve(Path(scratch)) as server:
            yield server


def _push(address: str, folder: Path) -> None:
    argv = [sys.executable, "-m", "aikit_nix.cli", "push", "-q", f"{address}/a/b:1", "--flake", str(folder)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def _curl(address: str, blob: Path) -> None:
    """As docker uploads: one PATCH with everything, and a PUT."""
    begun = _headers("-X", "POST", "-H", "Content-Length: 0", f"http://{address}/v2/a/b/blobs/uploads/")
    headers = ("-H", "Expect:", "-H", "Content-Type: application/octet-stream")
    sent = _headers("-X", "PATCH", *headers, "-T", str(blob), begun["location"])
    digest = blob.name
    _headers("-X", "PUT", "-H", "Content-Length: 0", f"{sent['location']}&digest=sha256:{digest}")


def _headers(*arguments: str) -> dict[str, str]:
    argv = ["curl", "-sS", "--fail", "-D", "-", "-o", "/dev/null", *arguments]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*?)\r?$", said, re.MULTILINE)}


def _peak(folder: Path, full: Path) -> float:
    """The most memory (MB) that a push of everything has at a time."""
    script = (
        "import json, resource, subprocess, sys; subprocess.run(json.loads(sys.argv[1]), check=True,"
        " stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    with _empty_registry(folder) as server:
        argv = [sys.executable, "-m", "aikit_nix.cli", "push", "-q", f"{server.address}/a/b:1", "--flake", str(full)]
        done = subprocess.run([sys.executable, "-c", script, json.dumps(argv)], check=True, capture_output=True)
    return int(done.stdout) * 1024 / 1e6
