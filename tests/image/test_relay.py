"""A program in an empty network namespace, and its port as it is seen from outside."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aikit_nix.image import relay

pytestmark = pytest.mark.usefixtures("bubblewrap")

# Sends back what it gets when that ends: a connection must be closed in one direction for it.
ECHO = """
import socket
with socket.create_server(("127.0.0.1", 8080)) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            data = b""
            while block := client.recv(65536):
                data += block
            client.sendall(data[::-1])
"""


@contextmanager
def started(*program: str) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    """The relay with a program, and where it listens out here."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = ["unshare", *user, "--net", sys.executable, relay.__file__, str(listener.fileno()), "8080", *program]
        with subprocess.Popen(argv, pass_fds=[listener.fileno()], stdout=subprocess.PIPE) as process:
            try:
                yield process, listener.getsockname()
            finally:
                process.kill()


def said(address: tuple[str, int], data: bytes) -> bytes:
    """The answer to some bytes; none where the connection is dropped."""
    answer = b""
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while block := client.recv(1 << 16):
            answer += block
    return answer


def test_connections_get_to_the_program_whole() -> None:
    data = os.urandom(3 << 20)
    with started(sys.executable, "-c", ECHO) as (process, address):
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        assert said(address, data) == data[::-1]
        assert said(address, b"again") == b"niaga"


@pytest.mark.parametrize("most", [20, 21])  # a connection is two: the first or the second of them is one too many
def test_more_connections_than_files_may_be_open_wait(most: int) -> None:
    with started(sys.executable, "-c", ECHO) as (process, address):
        assert process.stdout
        process.stdout.readline()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
        many = [socket.create_connection(address, timeout=30) for _ in range(40)]
        assert many[-1].send(b"x")
        time.sleep(1)  # until the relay has come to them all
        for client in many:
            client.close()
        time.sleep(1)  # until those have ended
        assert said(address, b"again") == b"niaga"


def test_who_breaks_off_does_not_keep_the_program() -> None:
    with started(sys.executable, "-c", ECHO) as (process, address):
        assert process.stdout
        process.stdout.readline()
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(b"x")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        assert said(address, b"again") == b"niaga"


def test_before_the_program_listens_a_connection_is_dropped() -> None:
    with started(sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)") as (process, address):
        assert process.stdout
        process.stdout.readline()
        with socket.create_connection(address, timeout=30) as client:
            assert client.recv(1) == b""


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_its_status_is_the_programs(code: str, status: int) -> None:
    with started(sys.executable, "-c", code) as (process, _):
        assert process.wait(30) == status


def test_who_is_told_to_end_tells_the_program() -> None:
    code = "import signal, time; signal.signal(15, lambda *_: exit(3)); print('ready', flush=True); time.sleep(60)"
    with started(sys.executable, "-c", code) as (process, _):
        assert process.stdout
        process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 3


def test_there_is_no_network_but_its_own_loopback() -> None:
    code = "import socket; print([name for _, name in socket.if_nameindex()], flush=True)"
    with started(sys.executable, "-c", code) as (process, _):
        assert process.stdout
        assert process.stdout.read() == b"['lo']\n"
