"""Measures `aikit-nix fetch` on loopback beside what people would do by hand, in one run, as ratios.

AIKIT_BENCH_MIB is the size of the file; a link of 1 Gbit/s is played by a server that sends no faster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aikit_nix.base import hashing
from aikit_nix.nix import store

MIB = int(os.environ.get("AIKIT_BENCH_MIB", "2048"))
GIGABIT = 125_000_000  # bytes a second
_ROUNDS = int(os.environ.get("AIKIT_BENCH_ROUNDS", "3"))
_BLOCK = 1 << 20

Number = tuple[str, float, str, float | None]


def measure(folder: Path) -> Iterator[Number]:
    """Name, value, unit, and the most that the value may be."""
    file = folder / "served.bin"
    with file.open("wb") as out:
        for _ in range(MIB):
            out.write(os.urandom(_BLOCK))
    seen = hashing.hash_file(file)
    with serve(file) as url:
        bench = _Bench(folder, url, seen.sha256)
        yield from bench.on_loopback()
        yield from bench.on_a_link()


class _Bench:
    """The ways to bring one file into the store. Each is tried in turn, so that all see the same weather."""

    def __init__(self, folder: Path, url: str, sha256: str) -> None:
        self.folder, self.url, self.sha256 = folder, url, sha256
        self.memory = 0  # the most that fetch had, in bytes

    def on_loopback(self) -> Iterator[Number]:
        ways = {"fetch": self.fetch, "curl": self.curl, "by hand": self.by_hand, "prefetch": self.prefetch}
        took = self.rounds(ways, self.url + "/fast.gguf")
        yield f"fetch {MIB} MiB into the store", took["fetch"], "s", None
        yield "the same, to curl into a file", took["fetch"] / took["curl"], "times", None
        yield "the same, to curl, sha256sum and nix-store --add-fixed", took["fetch"] / took["by hand"], "times", 1
        yield "the same, to nix-prefetch-url", took["fetch"] / took["prefetch"], "times", 1
        yield "the same, memory", self.memory / 1e6, "MB", 150

    def on_a_link(self) -> Iterator[Number]:
        took = self.rounds({"fetch": self.fetch, "curl": self.curl}, self.url + "/link.gguf", rounds=1)
        yield "fetch over 1 Gbit/s, to curl into a file", took["fetch"] / took["curl"], "times", 1.1

    def rounds(self, ways: Mapping[str, Callable[[str], None]], url: str, rounds: int = _ROUNDS) -> dict[str, float]:
        """The median seconds of each way."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        self.curl(self.url + "/fast.gguf")  # the first to write so much pays for the memory's pages
        self.clean(self.url + "/fast.gguf")
        for _ in range(rounds):
            for name, way in ways.items():
                seconds[name].append(elapsed(lambda way=way: way(url)))  # type: ignore[misc]
                self.clean(url)
        return {name: statistics.median(each) for name, each in seconds.items()}

    def fetch(self, url: str) -> None:
        aikitfile = self.folder / "aikitfile.yaml"
        aikitfile.write_text(
            f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: '{url}', sha256: '{self.sha256}'}}\n"
        )
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        argv = [
            sys.executable,
            "-m",
            "aikit_nix.cli",
            "fetch",
            str(aikitfile),
            "--flake",
            str(self.folder / "no-flake"),
        ]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stderr
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not self.path(url).exists():
            sys.exit(said.decode(errors="replace"))
        self.memory = max(self.memory, usage.ru_maxrss * 1024)

    def curl(self, url: str) -> None:
        run("curl", "--silent", "--fail", "--output", self.folder / Path(url).name, url)

    def by_hand(self, url: str) -> None:
        self.curl(url)
        run("sha256sum", self.folder / Path(url).name)
        run("nix-store", "--add-fixed", "sha256", self.folder / Path(url).name)

    def prefetch(self, url: str) -> None:
        run("nix-prefetch-url", url)

    def path(self, url: str) -> Path:
        return store.store_path(Path(url).name, self.sha256)

    def clean(self, url: str) -> None:
        (self.folder / Path(url).name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        if self.path(url).exists():
            run("nix-store", "--delete", self.path(url))
        os.sync()  # the next one's disk is its own


@contextmanager
def serve(file: Path) -> Iterator[str]:
    """A server that sends the file for every address, by sendfile: as /link… no faster than a link of 1 Gbit/s."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)

    def answer(connection: socket.socket) -> None:
        with connection, file.open("rb") as source:
            head = connection.makefile("rb")
            request = head.readline()
            while head.readline().strip():
                pass
            size = file.stat().st_size
            etag = hashlib.sha256(str(file).encode()).hexdigest()
            connection.sendall(f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "{etag}"\r\n\r\n'.encode())
            started = time.monotonic()
            for at in range(0, size, _BLOCK):
                if b" /link" in request:
                    time.sleep(max(0, started + at / GIGABIT - time.monotonic()))
                connection.sendfile(source, at, _BLOCK)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def run(*argv: str | Path) -> None:
    """A program that must succeed."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def elapsed(action: Callable[[], object]) -> float:
    """The seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
