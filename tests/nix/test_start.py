"""The image's own small program: it checks the processor before the server starts, and asks whether the server is well."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.base import data, targets
from support import carried
from support.carried import SYSTEMS
from support.file_server import FileServer

START = data.NIX / "start"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the x86-64 program")


@pytest.fixture(scope="module", params=SYSTEMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return carried.runnable(START / f"debian/{request.param}.txt", tmp_path_factory.mktemp("start"), "aikit-nix")


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_texts_are_what_the_source_compiles_to(system: str) -> None:
    assert carried.is_what_compiles(START / f"debian/{system}.txt", "start/start.c", "aikit-nix")


def script(folder: Path, text: str) -> Path:
    path = folder / "script"
    path.write_text(text)
    return path


def run(*argv: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, env=env, timeout=30)


def test_a_script_starts_its_program_with_the_arguments_and_the_environment(program: list[str], tmp_path: Path) -> None:
    show = "import os, sys; print(sys.argv[1:], os.environ.get('SET'))"
    (tmp_path / "show.py").write_text(show)
    path = script(tmp_path, f"#!/usr/libexec/aikit-nix start\nfor avx\nexec {sys.executable}\nneeds \n")
    done = run(*program, "start", path, "-c", show, "--port", "1", "", SET="it")
    # argv[0] is the script, as for any interpreter
    assert (done.returncode, done.stdout) == (0, "['--port', '1', ''] it\n"), done.stderr


def test_the_kernel_takes_it_for_an_interpreter(program: list[str], tmp_path: Path) -> None:
    if len(program) > 1:
        pytest.skip("the kernel does not run the other system's program")
    path = script(tmp_path, f"#!{program[0]} start\nexec {shutil.which('echo')}\n")
    path.chmod(0o755)
    assert run(path, "a", "b c").stdout == "a b c\n"


def in_sandbox(folder: Path, cpuinfo: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run with another /proc/cpuinfo."""
    (folder / "cpuinfo").write_text(cpuinfo)
    sandbox = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    return run(*sandbox, "--ro-bind", folder / "cpuinfo", "/proc/cpuinfo", "--", *argv)


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    ("cpuinfo", "lacks"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx avx2x xfma\nbugs\t\t: avx2\n", "avx2 fma f16c bmi2"),
        ("processor\t: 0\nflags\t\t: fpu avx2 fma f16c avx\n", "bmi2"),
        ("processor\t: 0\nflags\t\t: bmi2 fpu avx2 fma f16c avx\n", None),
        ("flags : none\nprocessor\t: 0\nFeatures\t: fp asimd\n", None),
        ("", None),
    ],
)
def test_a_processor_that_lacks_something_is_told(
    program: list[str], tmp_path: Path, cpuinfo: str, lacks: str | None
) -> None:
    path = script(tmp_path, f"exec {shutil.which('true')}\nfor avx2\nneeds {' '.join(targets.FLAGS['avx2'])}\n")
    done = in_sandbox(tmp_path, cpuinfo, *program, "start", path)
    said = (
        f"aikit-nix: this image is made for avx2, and this processor lacks {lacks}: take an image for another runtime\n"
    )
    assert (done.returncode, done.stderr) == ((1, said) if lacks else (0, ""))


@pytest.mark.parametrize(
    ("text", "says"),
    [("needs x\n", "names no program"), ("exec /nothing/there\n", "cannot start /nothing/there"), ("", "cannot read")],
)
def test_a_script_that_starts_nothing(program: list[str], tmp_path: Path, text: str, says: str) -> None:
    done = run(*program, "start", script(tmp_path, text))
    assert done.returncode == 1
    assert says in done.stderr


def test_a_probe_asks_for_the_path(program: list[str], files: FileServer) -> None:
    port = files.url.rsplit(":", 1)[1]
    files.files["/health"] = b"ok"
    ask = [*program, "probe", port, "/health", "--no-such-option", "NOTHING"]
    assert run(*ask).returncode == 0
    del files.files["/health"]
    done = run(*ask)
    assert (done.returncode, done.stderr) == (1, "aikit-nix: the server is not ready: HTTP/1.1 404\n")


def test_the_environment_names_another_port(program: list[str], files: FileServer) -> None:
    files.files["/health"] = b"ok"
    for value in (files.url.rsplit(":", 1)[1], files.url.removeprefix("http://"), f":{files.url.rsplit(':', 1)[1]}"):
        assert run(*program, "probe", "1", "/health", "--no-such-option", "PORT", PORT=value, PORTS="2").returncode == 0


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_does_not_answer_is_not_well(program: list[str], silent: int) -> None:
    done = run(*program, "probe", silent, "/health", "--port", "NOTHING")
    assert (done.returncode, done.stderr) == (1, "aikit-nix: the server is not ready: no answer\n")
    done = run(*program, "probe", 1, "/health", "--port", "NOTHING")
    assert (done.returncode, done.stderr) == (1, "aikit-nix: nobody listens on the server's port\n")


# A server that says when it listens, and what it is told; it ends at SIGTERM with the status 3.
SERVER = """
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[-1])))
signal.signal(signal.SIGTERM, lambda *_: os._exit(3) if sys.argv[1] == "polite" else os.write(1, b"told\\n"))
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1\\n"))
os.write(1, b"ready\\n")
while True:
    time.sleep(10)
"""


@contextlib.contextmanager
def started(
    program: list[str], folder: Path, *arguments: object, **env: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A Python program under `start`, once it says something, and the port that is its last argument."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = script(folder, f"exec {sys.executable}\nport 1 --port PORT\n")
    argv = [*program, "start", path, *arguments, "--port", port]
    with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("ready")
            yield process, port
        finally:
            process.kill()


def test_signals_and_statuses_are_handed_on(program: list[str], tmp_path: Path) -> None:
    with started(program, tmp_path, "-c", SERVER, "polite") as (process, _):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout
        assert process.stdout.readline() == "usr1\n"
        process.terminate()
        assert process.wait(20) == 3
    die = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run(*program, "start", script(tmp_path, f"exec {sys.executable}\n"), "-c", die).returncode == 128 + 9


def test_requests_in_flight_may_end_before_the_server_does(program: list[str], tmp_path: Path) -> None:
    with started(program, tmp_path, "-c", SERVER, "polite", AIKIT_NIX_STOP_SECONDS="600") as (process, port):
        with socket.create_connection(("127.0.0.1", port)):
            process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        assert process.wait(20) == 3


def test_a_second_signal_waits_for_nobody(program: list[str], tmp_path: Path) -> None:
    with (
        started(program, tmp_path, "-c", SERVER, "polite", AIKIT_NIX_STOP_SECONDS="600") as (process, port),
        socket.create_connection(("127.0.0.1", port)),
    ):
        process.terminate()
        time.sleep(0.5)  # two signals at once are one
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 3


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_a_server_that_hangs_is_killed(program: list[str], tmp_path: Path, seconds: str) -> None:
    with (
        started(program, tmp_path, "-c", SERVER, "hangs", AIKIT_NIX_STOP_SECONDS=seconds) as (process, port),
        socket.create_connection(("127.0.0.1", port)),
    ):
        process.terminate()
        assert process.wait(20) == 128 + 9
        assert process.stdout
        assert process.stdout.read() == "told\n"


AS_FIRST = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--as-pid-1", "--"]
# Leaves a child of its own behind, which the first process has to reap, and waits until it is gone.
ORPHAN = """
import os, sys, time
if child := os.fork():
    os.waitpid(child, 0)
    orphan = int(open(sys.argv[1]).read())
    while os.path.exists(f"/proc/{orphan}"):
        time.sleep(0.05)
    sys.exit(5)
elif orphan := os.fork():
    open(sys.argv[1], "w").write(str(orphan))
"""


@pytest.mark.usefixtures("bubblewrap")
def test_the_first_process_ends_a_server_that_handles_no_signal_yet_and_reaps(
    program: list[str], tmp_path: Path
) -> None:
    wait = "import time; print('ready', flush=True); time.sleep(600)"
    with started([*AS_FIRST, *program], tmp_path, "-c", wait) as (sandbox, _):
        (first,) = Path(f"/proc/{sandbox.pid}/task/{sandbox.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert sandbox.wait(20) == 128 + 15
    path = script(tmp_path, f"exec {sys.executable}\n")
    assert run(*AS_FIRST, *program, "start", path, "-c", ORPHAN, tmp_path / "orphan").returncode == 5


FIRST_PROCESS = """
import http.server, subprocess, sys, threading
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Well)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run(sys.argv[1].split() + ["probe", "8080", "/health", "--port", "PORT"]).returncode)
"""


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("option", [["--port"], ["--port", "1", "--port"]])
def test_the_servers_last_argument_names_the_port(program: list[str], option: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run(*AS_FIRST, sys.executable, "-c", FIRST_PROCESS, " ".join(program), *option, port)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["start"], ["probe", "1"], ["stop", "x", "y", "z"]])
def test_a_wrong_use_is_an_error(program: list[str], arguments: list[str]) -> None:
    done = run(*program, *arguments)
    assert (done.returncode, done.stderr) == (1, "aikit-nix: start SCRIPT, or probe PORT PATH OPTION VARIABLE\n")
