"""What a server in bubblewrap has and has not: the machine's own programs are the image here."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.image import sandbox

pytestmark = pytest.mark.usefixtures("bubblewrap")

# What it finds, as JSON.
LOOK = r"""
import json, os, socket, sys
def fails(do, *args):
    try:
        do(*args)
    except OSError as failed:
        return failed.errno
    return 0
status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "capabilities": int(status["CapEff"], 16),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "write": [fails(open, path + "/x", "w") for path in ("/", "/models", "/tmp")],
    "network": [name for _, name in socket.if_nameindex()],
    "environment": dict(os.environ),
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "model": open("/models/m").read(),
}))
"""
SERVE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An unpacked image; its programs are mounted over empty folders."""
    (tmp_path / "root/models").mkdir(parents=True)
    (tmp_path / "root/models/m").touch()
    for path in programs():
        (tmp_path / "root" / path.lstrip("/")).mkdir(parents=True)
    (tmp_path / "model").write_text("weights")
    return tmp_path / "root"


def programs() -> dict[str, Path]:
    """Where Python and its libraries are."""
    wanted = {"/usr", "/lib", "/lib64", "/bin", str(Path(sys.base_prefix).resolve())}
    return {path: Path(path) for path in sorted(wanted) if Path(path).is_dir() and not path.startswith("/usr/")}


def ran(root: Path, run: Mapping[str, Any], arguments: Sequence[str] = (), **env: str) -> dict[str, Any]:
    """What LOOK says as the image's program."""
    mounts = {**programs(), "/models/m": root.parent / "model"}
    python = str(Path(sys.base_prefix).resolve() / f"bin/python3.{sys.version_info[1]}")
    run = {"Entrypoint": [python, "-ISc", LOOK], **run}
    with (root.parent / "log").open("w+b") as log, socket.create_server(("127.0.0.1", 0)) as listener:
        with sandbox.start(run, root, listener, mounts=mounts, arguments=arguments, env=env, log=log) as server:
            server.wait(30)
        log.seek(0)
        found: dict[str, Any] = json.loads(log.read())
    return found


def test_it_can_do_nothing_but_serve(root: Path) -> None:
    found = ran(root, {"User": "65532:65533", "WorkingDir": "/models"})
    assert found["ids"] == [65532, 65533]
    assert found["capabilities"] == 0
    assert len(found["processes"]) <= 2  # itself, and bubblewrap's first process
    assert [bool(status) for status in found["write"]] == [True, True, False]
    assert found["network"] == ["lo"]
    assert (found["folder"], found["model"]) == ("/models", "weights")


def test_it_has_its_own_environment_and_ours_only_where_that_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours may hold tokens."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = ran(root, {"Env": ["A=1", "B=2=2", "NOTHING"], "Cmd": ["x"]}, ["a b", "--", ""], A="3")
    assert {name: found["environment"].get(name) for name in ("A", "B", "NOTHING", "HF_TOKEN")} == {
        "A": "3", "B": "2=2", "NOTHING": None, "HF_TOKEN": None,
    }  # fmt: skip
    assert found["arguments"] == ["x", "a b", "--", ""]
    assert found["ids"] == [0, 0]  # where an image names no user


def test_its_port_is_reached_from_here_until_it_is_stopped(root: Path) -> None:
    python = str(Path(sys.base_prefix).resolve() / f"bin/python3.{sys.version_info[1]}")
    run = {"Entrypoint": [python, "-ISc", SERVE], "Env": None, "Cmd": None, "User": None}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with sandbox.start(run, root, listener, mounts=programs(), log=None) as server:
            answer = None
            while answer is None:
                assert server.poll() is None
                try:
                    with urllib.request.urlopen(url, timeout=10) as said:
                        answer = said.read()
                except OSError:
                    pass  # it does not listen yet
            assert answer == b"served"
        assert server.returncode is not None


def test_a_server_that_does_not_end_by_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_TIMEOUT", 0.2)
    argv = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        sandbox.stop(server)
        assert server.returncode == -9
