"""A file that is being downloaded: what of it is believed later, who may write it, and where there is room for it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.base.hashing import hash_file
from aikit_nix.http.client import Client
from aikit_nix.models import download, partial
from aikit_nix.models.download import Fetched
from aikit_nix.models.partial import Partial
from support.downloads import DATA, SHA256, fetch, frame, listed, one, problem, sent
from support.file_server import Failure, FileServer


@pytest.mark.parametrize("damage", ["byte", "long", "short", "holes"])
@pytest.mark.parametrize("size", [None, len(DATA)])
def test_a_damaged_partial_file_does_not_matter(
    server: FileServer, tmp_path: Path, damage: str, size: int | None
) -> None:
    server.failures["/m"] = [Failure(cut=6 << 20)] + [Failure(status=503)] * 9
    problem(one(server, tmp_path, sha256=SHA256, size=size))
    server.failures.clear()
    file = tmp_path / "m.gguf"
    match damage:
        case "byte":
            file.write_bytes(b"x" + file.read_bytes()[1:])
        case "long":
            file.write_bytes(file.read_bytes() + DATA)
        case "short":
            file.write_bytes(file.read_bytes()[:-1])
        case _:  # what a power failure left
            file.write_bytes(file.read_bytes()[:-4096] + bytes(4096))
    (done,) = fetch(one(server, tmp_path, sha256=SHA256, size=size))
    assert done.file.read_bytes() == DATA
    assert done.digests.sha256 == SHA256


def test_what_is_left_of_a_file_that_is_empty_now_is_an_error(server: FileServer, tmp_path: Path) -> None:
    server.files["/m"] = b""
    (tmp_path / "m.gguf").write_bytes(b"left")
    assert f"must have {SHA256}: it is not the file that is meant" in problem(one(server, tmp_path, sha256=SHA256))
    assert sent(server) == ["bytes=4-", None]


def test_no_room_is_said_before_anything_is_fetched(server: FileServer, tmp_path: Path) -> None:
    message = problem(one(server, tmp_path), replace(one(server, tmp_path), size=1 << 60))
    assert "are to come: make room" in message
    assert server.requests == []
    server.failures["/m"] = [Failure(length=1 << 59)]
    assert "are to come: make room" in problem(one(server, tmp_path / "new/folder"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_fills_up_is_an_error_and_keeps_what_came(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", small], check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        monkeypatch.setattr(partial, "_RESERVE", -(1 << 30))  # the check sees room, and something else takes it
        assert "my model: cannot be written: No space left on device" in problem(one(server, small, sha256=SHA256))
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        (done,) = fetch(one(server, small, sha256=SHA256))
        assert done.file.read_bytes() == DATA
        assert sent(server)[1] is not None
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_folder_that_cannot_be_written_is_an_error(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "my model: cannot be written" in problem(one(server, tmp_path / "file" / "x"))


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_partial_file_that_is_none_is_an_error(server: FileServer, tmp_path: Path, kind: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    part = tmp_path / "m.gguf"
    os.mkfifo(part) if kind == "pipe" else part.symlink_to("victim")
    problem(one(server, tmp_path))
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_two_threads_or_processes_do_not_write_one_file(server: FileServer, tmp_path: Path) -> None:
    server.rate = 30 << 20
    fetched = fetch(*([one(server, tmp_path, sha256=SHA256)] * 3))
    assert [done.digests.sha256 for done in fetched] == [SHA256] * 3
    assert server.count("/m") == 1


def test_a_lock_of_another_process_is_waited_for(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "m.gguf").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: fetch(one(server, tmp_path)))
        thread.start()
        time.sleep(0.6)
        assert server.requests == []
    thread.join()
    assert (tmp_path / "m.gguf").read_bytes() == DATA
    assert capsys.readouterr().err.count("waits: another process downloads it") == 1


def test_what_follows_a_download_is_alone_with_the_file_too(server: FileServer, tmp_path: Path) -> None:
    """Two `lock`s at once: one threw the file away while the other put it into the store."""
    seen: list[bytes] = []

    def then(fetched: Fetched) -> None:
        time.sleep(0.2)
        seen.append(fetched.file.read_bytes())
        fetched.file.unlink()

    def run() -> None:
        with Client() as client:
            download.fetch_all([one(server, tmp_path, sha256=SHA256)], client, then=then)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(run) for _ in range(3)]:
            future.result()
    assert seen == [DATA] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"size": len(DATA), "sha256": SHA256}])
def test_a_whole_file_of_an_earlier_run_is_taken_where_a_hash_says_that_it_is_right(
    server: FileServer, tmp_path: Path, known: dict[str, Any]
) -> None:
    for requests in (1, 0 if known else 1):
        server.requests.clear()
        (done,) = fetch(one(server, tmp_path, layer_of=frame, **known))
        assert done.digests == hash_file(done.file, frame)
        assert done.digests.sha256 == SHA256
        assert len(server.requests) == requests
        assert not any(sent(server))
        assert listed(tmp_path) == ["m.gguf"]


def test_a_whole_file_that_is_another_one_is_replaced(server: FileServer, tmp_path: Path) -> None:
    fetch(one(server, tmp_path))
    server.files["/m"] = changed = DATA[::-1]
    (done,) = fetch(one(server, tmp_path))
    assert done.file.read_bytes() == changed
    (done,) = fetch(one(server, tmp_path, sha256=hashlib.sha256(changed).hexdigest()))
    (tmp_path / "m.gguf").write_bytes(b"rubbish")
    (done,) = fetch(one(server, tmp_path, sha256=hashlib.sha256(changed).hexdigest()))
    assert done.file.read_bytes() == changed


# --- The file by itself


def test_what_was_begun_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "new/m"
    with Partial(place) as file:
        file.append(b"begun ")
    assert place.stat().st_mode & 0o777 == 0o600
    with Partial(place) as file:
        assert (file.size, b"".join(file.blocks())) == (6, b"begun ")
        file.cut(5)
        file.append(b", done")
    assert (place.read_bytes(), listed(place.parent)) == (b"begun, done", ["m"])
    with Partial(place) as file:
        file.discard()
    assert listed(place.parent) == []


def test_nothing_stays_of_a_file_that_was_never_begun(tmp_path: Path) -> None:
    with Partial(tmp_path / "m") as file:
        assert file.size == 0
    assert listed(tmp_path) == []


def test_who_waits_for_another_may_give_up(tmp_path: Path) -> None:
    def waiting() -> None:
        raise KeyboardInterrupt

    with Partial(tmp_path / "m") as held:
        held.append(b"x")
        with pytest.raises(KeyboardInterrupt), Partial(tmp_path / "m", waiting):
            pytest.fail("two have it")
        held.append(b"y")
    assert (tmp_path / "m").read_bytes() == b"xy"


def test_room_is_needed_for_what_is_not_there_yet(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with (tmp_path / "m").open("wb") as part:
        part.truncate(free)  # takes no room
    partial.check_space([(tmp_path / "m", free), (tmp_path / "new/folder/n", 0)])
    with pytest.raises(AikitError, match="are to come: make room"):
        partial.check_space([(tmp_path / name, free * 2 // 3) for name in ("new/a", "b")])
