"""Starts an unpacked image in the project's own sandbox, and asks it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.image import sandbox
from support import tried
from support.image import Image

_READY_PATH = {"llama-server": "/health", "local-ai": "/readyz"}
_LOG_LINES = 15


class ContainerError(Exception):
    """The image did not start, or stopped; the message ends with the last lines that it wrote."""


@dataclass(frozen=True)
class Container:
    """A running image: `url` is its port as seen from here."""

    image: Image
    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        """What the server wrote so far, stdout and stderr together."""
        return self.log_file.read_text(errors="replace")

    def ask(self, path: str, body: Mapping[str, Any] | None = None, timeout: float = 300) -> Any:
        """The JSON answer to a GET, or with `body` to a POST. Raises ContainerError on any other answer.

        A first answer may take minutes: Vulkan's shaders are compiled for it, on a processor that has other work.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read(2000).decode(errors="replace")
            raise ContainerError(f"{path}: {refused} {said}") from None
        except (OSError, ValueError) as broken:
            raise ContainerError(f"{path}: {broken}\n{_tail(self.log())}") from None

    def peak(self, *names: str) -> int:
        """The most that the processes of these names ever had in memory, together, in bytes."""
        return _peak(self.process.pid, names)

    def chat(self, text: str, **options: Any) -> str:
        """The answer of /v1/chat/completions to one message of the user, at temperature 0 unless told
        otherwise."""
        messages = [{"role": "user", "content": text}]
        answer = self.ask("/v1/chat/completions", {"messages": messages, "temperature": 0, **options})
        content: str = answer["choices"][0]["message"]["content"]
        tried.record(self.image, tried.Seen.ANSWERED)
        return content


def _peak(pid: int, names: Sequence[str]) -> int:
    """Of a process and those below it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        below = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 0
    name, peak = (re.search(rf"^{key}:\s+(\S+)", status, re.MULTILINE) for key in ("Name", "VmHWM"))
    own = int(peak[1]) * 1024 if name and peak and name[1] in names else 0
    return own + sum(_peak(int(each), names) for children in below for each in children)


missing = sandbox.missing


@contextmanager
def start(
    image: Image,
    root: Path,
    *,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    volumes: Mapping[str, Path] | None = None,
    timeout: float = 300,
    port: int = 8080,
    waiting: Callable[[], None] = lambda: None,
    emulator: str | None = None,
) -> Iterator[Container]:
    """Run the image that was unpacked into `root`, wait until it is ready, and stop it at the end.

    `arguments` come after the image's own, `env` is added to the image's; `volumes` are folders
    to be seen at absolute paths, read-only; `timeout` is in seconds;
    `port` is the one that the server listens on. `waiting` is called ten times a second until the server is ready.
    `emulator` is a static program that runs those of another processor (qemu-user). Raises ContainerError.
    """
    for path in volumes or {}:
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="aikit-nix-") as scratch,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
    ):
        log_file = Path(scratch) / "log"
        run, mounts = image.run, dict(volumes or {})
        program = Path(run["Entrypoint"][0]).name
        if emulator:
            run = {**run, "Entrypoint": ["/tmp/emulator", f"/usr/bin/{program}", *run["Entrypoint"][1:]]}
            mounts["/tmp/emulator"] = Path(emulator)
        with (
            log_file.open("wb") as log,
            sandbox.start(
                run, root, listener, mounts=mounts, arguments=arguments, env=env, port=port, log=log
            ) as process,
        ):
            container = Container(image, f"http://127.0.0.1:{listener.getsockname()[1]}", process, log_file)
            _wait(container, _READY_PATH[program], timeout, waiting)
            tried.record(image, tried.Seen.STARTED)
            yield container


def _wait(container: Container, path: str, timeout: float, waiting: Callable[[], None]) -> None:
    deadline = time.monotonic() + timeout
    while True:
        if (status := container.process.poll()) is not None:
            said = _tail(container.log())
            raise ContainerError(f"the server stopped with status {status} before it was ready:\n{said}")
        try:
            with urllib.request.urlopen(container.url + path, timeout=5):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise ContainerError(f"the server was not ready in {timeout:.0f} s:\n{_tail(container.log())}")
        waiting()
        time.sleep(0.1)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LOG_LINES:])
