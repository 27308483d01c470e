"""A TCP proxy on loopback: counts what goes over the wire, and cuts it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Passes connections at `address` on to a server. All of it may be changed while it runs."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0  # bytes from clients
        self.received = 0  # bytes to them
        self.inward = False  # what comes back is counted for that, not what clients send
        self.cut_after: int | None = None  # bytes from clients, counted from the beginning: then the connection is cut
        self.cuts = 1  # so many, each after `cut_every` bytes more
        self.cut_every = 0
        self.hold_after: int | None = None  # the same, then nothing passes any more
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def total(self) -> int:
        """All bytes, headers included."""
        return self.sent + self.received

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
            back.start()
            self._pump(client, server, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.sent += len(data) * outward
                    self.received += len(data) * (not outward)
                    counted = self.received if self.inward else self.sent
                    cut = outward != self.inward and self.cut_after is not None and counted > self.cut_after
                    if cut:
                        self.cuts -= 1
                        self.cut_after = counted + self.cut_every if self.cuts else None
                if cut:
                    break
                if outward and self.hold_after is not None and self.sent > self.hold_after:
                    self._closed.wait()
                target.sendall(data)
        # Neither HTTP clients nor servers go on when one direction has ended.
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tap(target: str) -> Iterator[Wire]:
    """A Wire in front of HOST:PORT."""
    wire = Wire(target)
    try:
        yield wire
    finally:
        wire.close()
