"""An image's server on this machine: in podman or docker where one of them works, else in bubblewrap."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aikit_nix.base import console, files, process
from aikit_nix.base.errors import AikitError, error
from aikit_nix.http.client import Client, Timeouts
from aikit_nix.image import containers, find, load, rootfs, sandbox
from aikit_nix.image.containers import ContainerEngine
from aikit_nix.image.layout import Image

BUBBLEWRAP = "bubblewrap"
_BACKLOG = 1024  # connections that wait
_LOG_LINES = 15
_LONGEST_LINE = 64 << 10  # bytes, of what a server says
_LAST_WORDS = 5.0  # seconds for what it said before it ended
_ENGINES = (containers.PODMAN, containers.DOCKER, containers.NERDCTL)
_NOT_STARTED = (125, 126, 127)  # the status of `docker run` and `podman run` where no container came to be


@dataclass(frozen=True)
class Server:
    """A running server: `url` is where it answers on this machine."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def serve(
    source: str,
    *,
    program: str | None = None,
    port: int = 8080,
    arguments: Sequence[str] = (),
    quiet: bool = False,
) -> Iterator[Server]:
    """The server of a flake's or a layout's image, once it is ready; it is stopped at the end.

    `program` is an engine's or `bubblewrap`, `port` one of this machine's (0: any), `arguments` are the server's beside
    the image's own. What it says goes to stderr, with `quiet` nowhere, but for its last lines where it fails. Raises
    AikitError.
    """
    engine = None
    if program != BUBBLEWRAP:
        engine = containers.choose(program, _ENGINES)
    image = find.layout_of(source)
    _require_port(image, arguments)
    with files.scratch() as scratch, _log(scratch, quiet) as log:
        if engine:
            started = _in_engine(image, source, engine, port, tuple(arguments), log)
        else:
            started = _in_bubblewrap(image, scratch, port, arguments, log)
        with started as server:
            _wait(server, image, log, engine)
            yield server


@contextmanager
def _log(scratch: Path, quiet: bool) -> Iterator[IO[bytes]]:
    """Where the server's words go: into a file, or, escaped as all that is printed, to stderr."""
    if quiet:
        with (scratch / "log").open("w+b") as file:
            yield file
        return
    out, into = os.pipe()
    with open(out, "rb") as said, open(into, "wb") as log:  # noqa: PTH123 (descriptors)
        reader = threading.Thread(target=_show, args=[said], daemon=True)
        reader.start()
        yield log
        log.close()
        reader.join(_LAST_WORDS)


def _show(said: IO[bytes]) -> None:
    for line in iter(lambda: said.readline(_LONGEST_LINE), b""):
        console.say(line.decode(errors="replace").rstrip("\r\n"), err=True)


@contextmanager
def _in_engine(
    image: Image, source: str, engine: ContainerEngine, port: int, arguments: tuple[str, ...], log: IO[bytes]
) -> Iterator[Server]:
    if not load.is_loaded(image, engine):
        load.load(image, find.stream_of(source)[1], engine)
    with _listen(port) as listener:
        port = listener.getsockname()[1]  # it is free
    argv = engine.run(image.name, port, arguments, gpu=image.wants_gpu)
    with process.start(argv, stdout=log, stderr=log, own_group=True) as running:
        try:
            yield Server(f"http://127.0.0.1:{port}", running)
        finally:
            sandbox.stop(running)


@contextmanager
def _in_bubblewrap(
    image: Image, scratch: Path, port: int, arguments: Sequence[str], log: IO[bytes]
) -> Iterator[Server]:
    if problem := sandbox.missing():
        raise error(f"{problem}; {containers.none_works(_ENGINES)}", code="no-engine")
    if image.wants_gpu:
        console.say("bubblewrap gives the server no GPU: it runs on the processor", err=True)
    with _listen(port) as listener:
        models = rootfs.make(image, scratch / "root")
        started = sandbox.start(image.run, scratch / "root", listener, mounts=models, arguments=arguments, log=log)
        with started as running:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", running)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    except OSError as failed:
        raise error(
            f"port {port} cannot be had ({(failed.strerror or str(failed)).lower()}): name another one with --port"
        ) from None


def _wait(server: Server, image: Image, log: IO[bytes], engine: ContainerEngine | None) -> None:
    """Until it is ready, however long it loads its model. Raises AikitError where it ends before."""
    path = _ready_path(image)
    with Client(Timeouts(connect=2, read=5, answer=5, attempts=1)) as client:
        while True:
            if (status := server.process.poll()) is not None:
                if log.seekable():
                    log.seek(0)
                    console.say(*log.read().decode(errors="replace").splitlines()[-_LOG_LINES:], err=True)
                if engine and status in _NOT_STARTED:
                    way = f"`--with {BUBBLEWRAP}` does without it"
                    raise error(f"{engine.program} starts no container here (status {status}): {way}", code="no-engine")
                raise error(f"the server ended with status {status} before it was ready", code="server-ended")
            try:
                client.get(server.url + path)
                return
            except AikitError:
                time.sleep(0.1)


def _require_port(image: Image, arguments: Sequence[str]) -> None:
    """Raises AikitError where the server would listen where nobody asks it."""
    option = next((word for word in _probe(image) if word.startswith("--")), None)
    if any(argument.partition("=")[0] == option for argument in arguments):
        raise error(
            f"the server is asked on its own port: leave out its {option}, and name this machine's by `run --port`"
        )


def _ready_path(image: Image) -> str:
    """What the image's own health check asks for."""
    return next((word for word in _probe(image) if word.startswith("/")), "/v1/models")


def _probe(image: Image) -> list[str]:
    """The words of the image's own health check: a port, a path, and the option and variable of another port."""
    check = image.run.get("Healthcheck") or {}
    words = [str(word) for word in check.get("Test") or ()]
    return words[words.index("probe") + 1 :] if "probe" in words else []
