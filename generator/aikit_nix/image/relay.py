"""Runs inside an empty network namespace: starts a program and lets the outside reach its port on loopback.

    relay.py LISTENER PORT PROGRAM ARGUMENTS…

LISTENER is the number of an inherited listening socket that was made outside; every connection to it is
passed on to 127.0.0.1:PORT in here. A script of its own because `unshare` starts it; it needs no package.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PR_SET_PDEATHSIG = 1


def main(listener: int, port: int, program: list[str]) -> int:
    """Run the program to its end; its exit status."""
    # Whatever happens to the parent, nothing is left running: the program's own sandbox dies with us.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    loopback_up()
    outside = socket.socket(fileno=listener)
    threading.Thread(target=_accept, args=(outside, port), daemon=True).start()
    child = subprocess.Popen(program)
    signal.signal(signal.SIGTERM, lambda *_: _terminate(child.pid))
    return child.wait()


def _terminate(bubblewrap: int) -> None:
    """Bubblewrap hands no signal on, and its end is the server's at once: below it is its process 1, below that the server."""
    for pid in [pid for first in _children(bubblewrap) for pid in _children(first)] or [bubblewrap]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _accept(outside: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = outside.accept()
        except OSError:  # too many files are open: this one waits until others end
            time.sleep(0.1)
            continue
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()  # not listening yet: the client sees a dropped connection
            continue
        for ends in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one side broke off: the other is told, and the other pump ends
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    status = main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    sys.stdout.flush()
    os._exit(status if status >= 0 else 128 - status)
