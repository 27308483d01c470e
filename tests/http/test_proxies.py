"""Which proxy an address is asked through. The rules are those of curl and of Go's httpproxy; some are tried with curl itself."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from aikit_nix.http import proxies
from aikit_nix.http.client import Client
from support import file_server
from support.file_server import FileServer
from support.web import TIMEOUTS, refused

COVERED = [
    ("*", "example.com"),
    ("a, *", "example.com"),
    ("example.com", "example.com"),
    ("EXAMPLE.com", "example.COM"),
    ("example.com.", "example.com."),
    ("example.com", "a.b.example.com"),
    (".example.com", "a.example.com"),
    (".example.com", "example.com"),  # as curl; Go covers what is below alone
    ("*.example.com", "a.example.com"),
    ("a b\tcorp.net", "x.corp.net"),
    ("example.com:5000", "example.com"),
    ("10.1.2.3", "10.1.2.3"),
    ("10.1.2.3:5000", "10.1.2.3"),
    ("10.0.0.0/8", "10.200.0.1"),
    ("10.9.9.9/8", "10.200.0.1"),  # written with bits of a host
    ("fd00::/8", "fd12::1"),
    ("[fd00::]/8", "fd12::1"),
    ("fd12::1", "fd12::1"),
    ("[fd12:0::1]", "fd12::1"),
    ("[fd12::1]:5000", "fd12::1"),
    ("fe80::/10", "fe80::1%eth0"),
    ("10.0.0.0/8", "::ffff:10.0.0.1"),
]
NOT_COVERED = [
    ("", "example.com"),
    ("ample.com", "example.com"),
    ("example.com.evil", "example.com"),
    ("a.example.com", "example.com"),
    ("example.com:443", "example.com"),
    ("10.1.2.3:443", "10.1.2.3"),
    ("10.0.0.0/8", "11.0.0.1"),
    ("10.0.0.0/8", "10.example.com"),
    ("0.0.0.0/0", "example.com"),
    ("fd00::/8", "fe80::1"),
    ("[::1]", "example.com"),
    ("10.0.0.0/33", "10.0.0.1"),
    ("10.0.0.0/x", "10.0.0.0"),
    ("http://example.com", "example.com"),
    (". .. *. : [ ] [] / :5000", "example.com"),
]


@pytest.mark.parametrize(("rules", "host"), COVERED)
def test_no_proxy_covers(rules: str, host: str) -> None:
    assert proxies.bypassed(host, 5000, rules)
    assert proxies.bypassed(host, 5000, f"nonsense://[, {rules}")


@pytest.mark.parametrize(("rules", "host"), NOT_COVERED)
def test_no_proxy_does_not_cover(rules: str, host: str) -> None:
    assert not proxies.bypassed(host, 5000, rules)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing: it is what the rules are compared with")
@pytest.mark.parametrize(
    ("rules", "covered"), [("127.0.0.0/8", True), ("fd00::/8,127.0.0.1", True), ("10.0.0.0/8", False)]
)
def test_curl_agrees(rules: str, covered: bool, files: FileServer) -> None:
    files.files["/a"] = b"straight"
    argv = ["curl", "-s", "--proxy", "http://127.0.0.1:9", "--noproxy", rules, files.url + "/a"]
    assert (subprocess.run(argv, capture_output=True, check=False).stdout == b"straight") is covered
    assert proxies.bypassed("127.0.0.1", 80, rules) is covered


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]
)
def test_this_machine_is_asked_straight(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:3128")
    assert proxies.proxy_for("https", host, 443) is None


def test_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert proxies.proxy_for("https", "example.com", 443) is None
    monkeypatch.setenv("ALL_PROXY", "socks://a:1")
    assert proxies.proxy_for("http", "example.com", 80) == "socks5h://a:1"
    monkeypatch.setenv("HTTPS_PROXY", "b:2")
    assert proxies.proxy_for("http", "example.com", 80) == "socks5h://a:1"
    assert proxies.proxy_for("https", "example.com", 443) == "http://b:2"
    monkeypatch.setenv("https_proxy", "http://c:3")
    assert proxies.proxy_for("https", "example.com", 443) == "http://c:3"


@pytest.mark.parametrize("bad", ["socks5://127.0.0.1:9", "socks4://a", "nonsense://x", "http://["])
def test_a_proxy_that_is_not_used_stops_nothing(bad: str, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files.files["/a"] = b"straight"
    monkeypatch.setenv("ALL_PROXY", bad)
    monkeypatch.setenv("http_proxy", "")
    with Client(TIMEOUTS) as client:
        assert client.get(files.url + "/a").body == b"straight"
    with file_server.serve({"/b": b"by the other"}) as other, Client(TIMEOUTS) as client:
        monkeypatch.setenv("http_proxy", other.url)
        assert client.get("http://nowhere.invalid/b").body == b"by the other"
        assert "proxy" in refused(client, "https://nowhere.invalid/b").message


@contextmanager
def _socks(asked: list[str], port: int) -> Iterator[str]:
    """A SOCKS 5 proxy that leads everybody to one port of this machine; the hosts that it was asked for."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                client.recv(2 + client.recv(2, socket.MSG_PEEK)[1])
                client.sendall(b"\x05\x00")
                client.recv(4)
                size = client.recv(1)[0]
                asked.append(client.recv(size).decode())
                client.recv(2)
                client.sendall(b"\x05\x00\x00\x01" + bytes(4) + struct.pack("!H", 0))
                server = socket.create_connection(("127.0.0.1", port))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def _copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError), one, other:
        while data := one.recv(65536):
            other.sendall(data)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_a_socks_proxy(scheme: str, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files.files["/a"] = b"through SOCKS"
    asked: list[str] = []
    with _socks(asked, int(files.url.rpartition(":")[2])) as address, Client(TIMEOUTS) as client:
        monkeypatch.setenv("all_proxy", f"{scheme}://{address}")
        monkeypatch.delenv("http_proxy", raising=False)
        monkeypatch.delenv("HTTP_PROXY", raising=False)
        assert client.get("http://registry.corp.invalid/a").body == b"through SOCKS"
    assert asked == ["registry.corp.invalid"]
