"""A file that is being downloaded: what of it is believed later, who may write it, and where there is room for it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.models import download, partial
from aikit_nix.models.download import Fetched
from aikit_nix.models.partial import Partial, State
from support.downloads import DATA, SHA256, fetch, listed, one, problem, sent
from support.file_server import Failure, FileServer


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_after_a_restart_a_hash_decides(server: FileServer, tmp_path: Path, sha256: str | None) -> None:
    server.failures["/m"] = [Failure(cut=6 << 20)] + [Failure(status=503)] * 9
    problem(one(server, tmp_path, sha256=sha256))
    state = json.loads((tmp_path / "m.gguf.state").read_text())
    (tmp_path / "m.gguf.state").write_text(json.dumps(state | {"boot": "another"}))
    if not sha256:
        with (tmp_path / "m.gguf.part").open("r+b") as part:  # what the power failure left
            part.seek(5 << 20)
            part.write(bytes(1 << 20))
    del server.failures["/m"][:], server.requests[:]
    (done,) = fetch(one(server, tmp_path, sha256=sha256))
    assert done.digests.sha256 == SHA256
    assert sent(server) == [f"bytes={6 << 20}-" if sha256 else None]


@pytest.mark.parametrize("damage", ["part", "state", "long", "no state"])
def test_a_damaged_partial_file_does_not_matter(server: FileServer, tmp_path: Path, damage: str) -> None:
    server.failures["/m"] = [Failure(cut=6 << 20)] + [Failure(status=503)] * 9
    problem(one(server, tmp_path, sha256=SHA256))
    server.failures.clear()
    part, state = tmp_path / "m.gguf.part", tmp_path / "m.gguf.state"
    match damage:
        case "part":
            part.write_bytes(b"x" + part.read_bytes()[1:])
        case "state":
            state.write_bytes(b'{"size": "1"')
        case "long":
            part.write_bytes(part.read_bytes() + DATA)
        case _:
            state.unlink()
    (done,) = fetch(one(server, tmp_path, sha256=SHA256))
    assert done.file.read_bytes() == DATA


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
        assert "my model: cannot be written: No space left on device" in problem(one(server, small))
        assert "m.gguf" not in listed(small)
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        (done,) = fetch(one(server, small))
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
    part = tmp_path / "m.gguf.part"
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
    with (tmp_path / "m.gguf.part").open("w") as held:
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
        partial.discard(fetched.file)

    def run() -> None:
        with Client() as client:
            download.fetch_all([one(server, tmp_path, sha256=SHA256)], client, then=then)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(run) for _ in range(3)]:
            future.result()
    assert seen == [DATA] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_of_an_earlier_run_is_taken(server: FileServer, tmp_path: Path) -> None:
    for known, requests in (({"sha256": SHA256}, 0), ({}, 1)):
        partial.discard(tmp_path / "m.gguf")
        fetch(one(server, tmp_path, **known))
        server.requests.clear()
        (done,) = fetch(one(server, tmp_path, **known))
        assert done.digests.sha256 == SHA256
        assert len(server.requests) == requests
        assert all(sent(server))
        assert listed(tmp_path) == ["m.gguf", "m.gguf.state"]


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

STATE = State("1" * 64, '"etag"', 8 << 20)


def begun(place: Path, data: bytes, state: State = STATE) -> None:
    with Partial(place) as file:
        file.begin(state)
        file.append(data)


def test_what_was_begun_goes_on_and_lies_at_its_place_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "new/m"
    begun(place, b"begun ")
    assert not place.exists()
    with Partial(place) as file:
        assert (file.size, file.known_good(checked=False), b"".join(file.blocks())) == (6, 6, b"begun ")
        assert file.state and (file.state.address, file.state.validator) == (STATE.address, STATE.validator)
        file.cut(5)
        file.append(b", done")
        file.finish()
    assert (place.read_bytes(), listed(place.parent)) == (b"begun, done", ["m", "m.state"])
    assert [path.stat().st_mode & 0o777 for path in (place, place.with_name("m.state"))] == [0o644, 0o600]
    with Partial(place) as file:
        assert file.is_whole()
        file.reopen()
        assert (place.exists(), file.known_good(checked=False)) == (False, 11)
        file.discard()
    assert listed(place.parent) == []


def test_nothing_stays_of_a_file_that_was_never_begun(tmp_path: Path) -> None:
    with Partial(tmp_path / "m") as file:
        assert (file.is_whole(), file.known_good(checked=False)) == (False, 0)
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [{"size": "1"}, {"size": True}, {"size": -1}, {"address": 7}, {"boot": []}, {"more": 1}],
)
def test_a_state_that_makes_no_sense_is_none(tmp_path: Path, damage: dict[str, object]) -> None:
    begun(tmp_path / "m", b"x" * 9)
    note = tmp_path / "m.state"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"boot": "before"} | damage))
    with Partial(tmp_path / "m") as file:
        assert (file.state, file.known_good(checked=False)) == (None, 0)


def test_who_waits_for_another_may_give_up(tmp_path: Path) -> None:
    def waiting() -> None:
        raise KeyboardInterrupt

    with Partial(tmp_path / "m") as held:
        held.begin(STATE)
        held.append(b"x")
        with pytest.raises(KeyboardInterrupt), Partial(tmp_path / "m", waiting):
            pytest.fail("two have it")
        held.append(b"y")
    assert (tmp_path / "m.part").read_bytes() == b"xy"


def test_room_is_needed_for_what_is_not_there_yet(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with (tmp_path / "m.part").open("wb") as part:
        part.truncate(free)  # takes no room
    partial.check_space([(tmp_path / "m", free), (tmp_path / "new/folder/n", 0)])
    with pytest.raises(AikitError, match="are to come: make room"):
        partial.check_space([(tmp_path / name, free * 2 // 3) for name in ("new/a", "b")])


def test_what_an_older_version_left_at_the_place_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    place = tmp_path / "x"
    place.write_bytes(b"old")  # a run was killed between the store and the file's removal
    with Partial(place) as partial:
        partial.begin(State("a" * 64, '"new"', 8 << 20))
    assert not place.exists()
