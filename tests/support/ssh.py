"""A machine to build on, reached by ssh on loopback: Debian's sshd with keys and settings of its own, and its own /nix.

Nothing of this machine's ssh is read or changed. What goes each way is counted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support import fresh

_SSHD = "/usr/sbin/sshd"
_BLOCK = 1 << 16


def problem() -> str | None:
    """Why there can be no such machine here."""
    if os.geteuid() != 0:
        return "sshd lets in nobody but root, who is not running this"
    for program in (_SSHD, "ssh", "ssh-keygen"):
        if not shutil.which(program):
            return f"{program} is missing: Debian's openssh-server has it"
    return fresh.problem()


@dataclass
class Machine:
    """What Nix needs to reach it, and the bytes that went there and came back since `count`."""

    options: str
    sent: int = 0
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        return {"NIX_SSHOPTS": self.options}

    def count(self) -> None:
        """Begin to count."""
        with self.lock:
            self.sent = self.received = 0


@contextmanager
def serve(folder: Path, store: Path) -> Iterator[Machine]:
    """The machine, whose keys and settings are in a new folder; `store` is its /nix."""
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        inside = probe.getsockname()[1]
    (folder / "nix").mkdir()
    (folder / "nix/nix.conf").write_text(os.environ["NIX_CONFIG"] + "\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{inside}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv NIX_CONF_DIR={folder}/nix HOME={folder}\n"
    )
    script = f"mkdir -p /run/sshd && exec {_SSHD} -D -e -f {shlex.quote(str(folder / 'sshd_config'))}"
    with (folder / "log").open("wb") as log, socket.create_server(("127.0.0.1", 0)) as listener:
        argv = fresh.argv(store, ["sh", "-c", script], network=True)
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _wait(inside, process, folder / "log")
            options = (
                f"-p {listener.getsockname()[1]} -i {folder}/user -F none -o IdentitiesOnly=yes -o LogLevel=ERROR"
                " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            )
            machine = Machine(options)
            threading.Thread(target=_accept, args=(listener, inside, machine), daemon=True).start()
            yield machine
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes who waits
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"sshd does not run: {log.read_text()}")


def _accept(listener: socket.socket, port: int, machine: Machine) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # closed
        threading.Thread(target=_relay, args=(client, port, machine), daemon=True).start()


def _relay(client: socket.socket, port: int, machine: Machine) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pump, args=(server, client, machine, "received"), daemon=True)
        back.start()
        _pump(client, server, machine, "sent")
        back.join()


def _pump(source: socket.socket, target: socket.socket, machine: Machine, way: str) -> None:
    with contextlib.suppress(OSError):  # one end has gone
        while data := source.recv(_BLOCK):
            with machine.lock:
                setattr(machine, way, getattr(machine, way) + len(data))
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
