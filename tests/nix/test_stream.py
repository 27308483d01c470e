"""A file that enters the Nix store while its bytes come; whatever happens, no half of one stays there."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aikit_nix.base import process
from aikit_nix.nix import store
from aikit_nix.nix.stream import StoreStream
from support import fresh
from support.contents import content, left_in_store


def stream(name: str, data: bytes) -> StoreStream:
    stream = StoreStream(name)
    for at in range(0, len(data), 1 << 20):
        stream.write(data[at : at + (1 << 20)])
    return stream


@pytest.mark.parametrize("size", [0, 1, 100, 1001, (40 << 20) + 5])
@pytest.mark.usefixtures("nix")
def test_a_file_enters_the_store_while_it_comes(tmp_path: Path, size: int) -> None:
    data = content(tmp_path, size)
    path = stream("x.gguf", data).finish()
    assert path == store.store_path("x.gguf", hashlib.sha256(data).hexdigest())
    assert path.read_bytes() == data
    process.run(["nix-store", "--verify-path", path])
    assert stream("x.gguf", data).finish() == path  # it is there already


FIRST = """
from pathlib import Path
from aikit_nix.nix.stream import StoreStream
stream = StoreStream("x")
print(Path("/nix/var/nix/gcroots/profiles").is_symlink())
stream.abort()
"""


@pytest.mark.usefixtures("nix")
def test_a_new_store_is_made_before_anything_else_can_ask_nix(tmp_path: Path) -> None:
    if problem := fresh.problem():
        pytest.skip(problem)
    done = fresh.run(tmp_path / "nix", sys.executable, "-c", FIRST, cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("size", [100, 20 << 20, (50 << 20) + 7])
@pytest.mark.usefixtures("nix")
def test_what_is_broken_off_leaves_nothing_in_the_store(tmp_path: Path, size: int) -> None:
    name = f"{size}-broken-off.gguf"
    threads = threading.active_count()
    data = content(tmp_path, size)
    for _ in range(5):
        broken = stream(name, data)
        broken.abort()
        assert broken.finish() is None
    assert left_in_store(name) == set()
    assert threading.active_count() == threads


KILLED = """
import sys
from aikit_nix.nix.stream import StoreStream
stream = StoreStream(sys.argv[1])
print(flush=True)
while True:
    stream.write(bytes(1234567))
"""


@pytest.mark.usefixtures("nix")
def test_a_killed_process_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    """Nix takes the end of a connection for the end of the file, if it is not told otherwise."""
    name = "killed.gguf"
    for tenths in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, name], stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline()
            time.sleep(tenths / 10)
            process.kill()
    time.sleep(1)  # Nix cleans up
    assert left_in_store(name) == set()


@pytest.mark.parametrize(
    "daemon",
    [
        None,
        "",
        "exit 1",
        "head -c 8 /dev/zero; cat > /dev/null",
        "printf 'oixd\\000\\000\\000\\000 \\001\\000\\000\\000\\000\\000\\000'; sleep 0.2",
        # one that greets, and dies on the way
        "printf 'oixd\\000\\000\\000\\000 \\001\\000\\000\\000\\000\\000\\000stla\\000\\000\\000\\000'; head -c 5000000 > /dev/null",
        "printf 'oixd\\000\\000\\000\\000\\005\\001\\000\\000\\000\\000\\000\\000'; cat > /dev/null",
        "cat /dev/zero",
    ],
)
def test_a_daemon_of_no_use_is_said_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: str | None
) -> None:
    if daemon is not None:
        for tool in ("sh", "cat", "head", "tr", "sleep"):
            (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    if daemon:
        (tmp_path / "nix-daemon").write_text(f"#!/bin/sh\n{daemon}\n")
        (tmp_path / "nix-daemon").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stream("x.gguf", bytes(30 << 20)).finish() is None


def test_a_newer_nix_takes_the_stream_too(
    tmp_path: Path, newer_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = tmp_path / "nix-daemon"  # what it does is a matter of its name
    daemon.write_text((newer_programs / "nix-store").read_text().replace("--argv0 nix-store", "--argv0 nix-daemon"))
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{newer_programs}", prepend=":")
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "root"))
    data = content(tmp_path, (40 << 20) + 5)
    path = stream("x.gguf", data).finish()
    assert path == store.store_path("x.gguf", hashlib.sha256(data).hexdigest())
    assert Path(f"{tmp_path}/root{path}").read_bytes() == data
    process.run(["nix-store", "--verify-path", path])
    stream("broken-off.gguf", data).abort()
    assert not [entry for entry in Path(f"{tmp_path}/root/nix/store").iterdir() if "broken-off" in entry.name]
    Path(f"{tmp_path}/root/nix/store").chmod(0o755)  # for pytest to remove it
