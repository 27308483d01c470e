"""The check that starts an image's server (nix/serves.py), as it runs where Nix has no sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from aikit_nix.base import data
from support.loopback import Handler, Server, running

SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def answer(self):
        body = json.dumps({{"data": [{{"id": "ours"}}], "choices": ["yes"]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer

option, address = sys.argv[-2:]
HTTPServer(("127.0.0.1", int(address.rpartition(":")[2])), Handler).serve_forever()
"""


class Stranger(Handler):
    """Another server on the image's port."""

    def respond(self) -> None:
        body = b'{"data": [{"id": "another"}], "choices": ["no"]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("option", ["--port", "--address"])
def test_it_asks_the_server_that_it_started(tmp_path: Path, option: str) -> None:
    program = tmp_path / "server"
    program.write_text(SERVER.format(python=sys.executable))
    program.chmod(0o755)
    probe = ["8080", "/health", option, "VARIABLE"]
    spec = {"bin": str(program), "root": str(tmp_path), "args": ["--port", "8080"], "env": {}, "probe": probe}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with ExitStack() as stack:
        with suppress(OSError):  # whoever has the port already is as good
            stack.enter_context(running(Server(("127.0.0.1", 8080), Stranger)))
        argv = [sys.executable, str(data.NIX / "serves.py"), str(tmp_path / "spec.json"), str(tmp_path / "out")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out").read_text()) == {"models": ["ours"]}
