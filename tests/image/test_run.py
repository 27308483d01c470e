"""`aikit-nix run`: the image's server in bubblewrap and in engines, until it is told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.image import run
from support import layouts, tiny_gguf
from support.command import aikit_nix

QUESTION = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "temperature": 0}


@contextmanager
def running(*options: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`aikit-nix run` in bubblewrap, once it is ready, and its URL."""
    argv = [sys.executable, "-m", "aikit_nix.cli", "run", "--with", "bubblewrap", "--port", "0", *map(str, options)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        ready = process.stdout.readline()
        found = re.match(r"ready: (http://127\.0\.0\.1:\d+)/v1 ", ready)
        assert found, ready
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def ask(url: str, question: dict[str, Any] = QUESTION) -> str:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def gone(pids: list[int]) -> bool:
    for _ in range(100):
        if not alive(pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_answers_and_stops_when_told(tiny_flake: Path, how: signal.Signals) -> None:
    with running("--flake", tiny_flake) as (process, url):
        assert ask(url) == tiny_gguf.SENTENCE
        children = descendants(process.pid)
        assert len(children) > 1
        process.send_signal(how)
        process.wait(20)
        assert gone(children)
        assert process.returncode == (-9 if how == signal.SIGKILL else 0)


@pytest.mark.usefixtures("bubblewrap")
def test_many_ask_at_once_and_its_memory_stays_as_it_is(tiny_flake: Path) -> None:
    with running("--flake", tiny_flake) as (process, url):

        def ask_together(count: int) -> int:
            """The bytes that the server has in memory afterwards."""
            together = threading.Barrier(count)

            def one(number: int) -> str:
                together.wait()
                return ask(url, QUESTION | {"seed": number})

            with ThreadPoolExecutor(count) as pool:
                assert set(pool.map(one, range(count))) == {tiny_gguf.SENTENCE}
            status = [Path(f"/proc/{pid}/status").read_text() for pid in descendants(process.pid)]
            return sum(int(found[1]) for text in status if (found := re.search(r"VmRSS:\s*(\d+) kB", text))) << 10

        before = ask_together(200)
        assert ask_together(200) < before + (24 << 20)


@pytest.mark.usefixtures("bubblewrap")
def test_a_chat_through_pipes(tiny_flake: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "aikit_nix.cli", "run", "--chat", "--port", "0", "--with", "bubblewrap"]
    done = subprocess.run(
        [*argv, "--flake", str(tiny_flake), "--", "--ctx-size", "256"],
        input="Hello\n\nGrüß Gott 你好\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tiny_gguf.SENTENCE}\n" * 2
    assert done.stderr.startswith("ready: http://127.0.0.1:")


@pytest.mark.usefixtures("bubblewrap")
def test_what_cannot_start_is_said(tiny_flake: Path, tmp_path: Path) -> None:
    run = ("run", "--with", "bubblewrap", "--flake", tiny_flake)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = aikit_nix(*run, "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert done.returncode == 1
    assert "name another one with --port" in done.stderr
    done = aikit_nix(*run, "--port", "0", "--chat", "--", "--no-such-option", cwd=tmp_path)
    assert done.returncode == 1
    assert "--no-such-option" in done.stderr
    assert "before it was ready" in done.stderr.splitlines()[-1]
    for port in (["--port", "9090"], ["--port=9090"]):
        done = aikit_nix(*run, "--port", "0", "--", *port, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "leave out its --port, and name this machine's by `run --port`" in done.stderr
    thin = layouts.make(tmp_path / "thin", {"/models/x.gguf": os.urandom(10)})
    done = aikit_nix("run", "--with", "bubblewrap", "--flake", thin, "--port", "0", cwd=tmp_path)
    assert "/models/x.gguf is not on this machine: `aikit-nix fetch` brings it" in done.stderr


def test_an_engine_that_starts_no_container_is_not_the_only_way(tiny_flake: Path, tmp_path: Path) -> None:
    (tmp_path / "podman").write_text("#!/bin/sh\ncase $1 in info|image) ;; run) exit 126 ;; esac\ncat > /dev/null\n")
    (tmp_path / "podman").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = aikit_nix("run", "--with", "podman", "--flake", tiny_flake, "--port", "0", cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "podman starts no container here (status 126): `--with bubblewrap` does without it" in done.stderr


def test_an_engine_gets_the_image_and_the_arguments(tiny_flake: Path, tmp_path: Path) -> None:
    """A stand-in for podman, whose server is ready at once."""
    server = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"
    (tmp_path / "health").write_text("ok")
    (tmp_path / "podman").write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/calls
case $1 in
  info) ;;
  image) exit 1 ;;
  load) exec cat > {tmp_path}/image.tar ;;
  run) port=$(echo "$*" | sed 's/.*127.0.0.1:\\([0-9]*\\):8080.*/\\1/')
       cd {tmp_path}; exec {sys.executable} -c '{server}' "$port" 2> /dev/null ;;
esac
"""
    )
    (tmp_path / "podman").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "aikit_nix.cli", "run", "--port", "0", "--flake", str(tiny_flake)]
    process = subprocess.Popen([*argv, "--", "--threads", "2"], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("ready: ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    *_, loaded, ran = (tmp_path / "calls").read_text().splitlines()
    assert loaded == "load"
    assert ran.startswith("run --rm --read-only --tmpfs /tmp --cap-drop ALL --publish 127.0.0.1:")
    assert ran.endswith(" tiny:avx --threads 2")


def test_what_the_server_says_steers_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model's `general.name` is in its log."""
    with run._log(tmp_path, quiet=False) as log:
        subprocess.run(["printf", "name \\033]0;evil\\007 \\342\\200\\256\nlast"], stdout=log, check=True)
    assert capfd.readouterr() == ("", "name \\x1b]0;evil\\x07 \\u202e\nlast\n")
