"""Starts an unpacked image the way a cautious container runtime would, with bubblewrap.

Read-only root, a tmpfs on /tmp, a user that is not root, no capabilities, own process and network
namespaces: the server has no network but its own loopback, and is reached through one relayed port.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import relay, tried
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

    def ask(self, path: str, body: Mapping[str, Any] | None = None, timeout: float = 120) -> Any:
        """The JSON answer to a GET, or with `body` to a POST. Raises ContainerError on any other answer."""
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

    def chat(self, text: str, **options: Any) -> str:
        """The answer of /v1/chat/completions to one message of the user, at temperature 0 unless told
        otherwise."""
        messages = [{"role": "user", "content": text}]
        answer = self.ask("/v1/chat/completions", {"messages": messages, "temperature": 0, **options})
        content: str = answer["choices"][0]["message"]["content"]
        tried.record(self.image, tried.Seen.ANSWERED)
        return content


def missing() -> str | None:
    """Why no image can be started on this machine, or None."""
    for program, package in (("bwrap", "bubblewrap"), ("unshare", "util-linux")):
        if not shutil.which(program):
            return f"`{program}` is missing (Debian package {package})"
    done = subprocess.run([*_namespace(), *_sandbox(Path("/")), "true"], capture_output=True, text=True, check=False)
    return f"bubblewrap cannot make a sandbox here: {_tail(done.stderr)}" if done.returncode else None


@contextmanager
def start(
    image: Image,
    root: Path,
    *,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    port: int = 8080,
    waiting: Callable[[], None] = lambda: None,
    emulator: str | None = None,
) -> Iterator[Container]:
    """Run the image that was unpacked into `root`, wait until it is ready, and stop it at the end.

    `arguments` come after the image's own, `env` is added to the image's; `timeout` is in seconds;
    `port` is the one that the server listens on. `waiting` is called ten times a second until the server is ready.
    `emulator` is a static program that runs those of another processor (qemu-user). Raises ContainerError.
    """
    config = image.run
    command = [*config.get("Entrypoint", []), *config.get("Cmd", []), *arguments]
    environment = dict(entry.split("=", 1) for entry in config.get("Env", ())) | dict(env or {})
    user, _, group = config.get("User", "0").partition(":")
    sandbox = [*_sandbox(root), "--uid", user, "--gid", group or user]
    sandbox += ["--chdir", config.get("WorkingDir") or "/"]
    for name, value in environment.items():
        sandbox += ["--setenv", name, value]
    for mount_point in ("dev", "proc", "tmp"):  # a container runtime makes these too
        (root / mount_point).mkdir(exist_ok=True)

    with (
        tempfile.TemporaryDirectory(prefix="aikit-nix-") as scratch,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        log_file = Path(scratch) / "log"
        argv = [*_namespace(), sys.executable, relay.__file__, str(listener.fileno()), str(port)]
        if emulator:
            sandbox += ["--ro-bind", emulator, "/tmp/emulator"]
            argv += [*sandbox, "--", "/tmp/emulator", f"/usr/bin/{command[0]}", *command[1:]]
        else:
            argv += [*sandbox, "--", *command]
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()]
            )
        container = Container(image, f"http://127.0.0.1:{listener.getsockname()[1]}", process, log_file)
        try:
            _wait(container, _READY_PATH[Path(command[0]).name], timeout, waiting)
            tried.record(image, tried.Seen.STARTED)
            yield container
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _namespace() -> list[str]:
    # Root makes a network namespace outright, anybody else inside a user namespace.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net"]


def _sandbox(root: Path) -> list[str]:
    argv = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    argv += ["--die-with-parent", "--new-session", "--clearenv"]
    return [*argv, "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]


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
