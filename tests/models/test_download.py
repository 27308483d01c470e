"""Downloads against servers that misbehave, full disks, other processes and kill -9."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.hashing import hash_file
from aikit_nix.models.download import Fetched
from aikit_nix.models.origin import Download, Pace
from support import file_server
from support.downloads import DATA, SHA256, TIMEOUTS, Tokens, fetch, frame, listed, one, problem, sent
from support.file_server import Failure, FileServer

TOKEN = "hf_abcdefghijklmnop"


KNOWN = [{}, {"size": len(DATA)}, {"size": len(DATA), "sha256": SHA256}]


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_arrives_whole_with_all_its_hashes(
    server: FileServer, tmp_path: Path, known: dict[str, Any], lengths: bool
) -> None:
    server.lengths = lengths
    (done,) = fetch(one(server, tmp_path, layer_of=frame, **known))
    assert done.file.read_bytes() == DATA
    assert done.digests == hash_file(done.file, frame)
    assert done.digests.sha256 == SHA256
    framed = frame(len(DATA)).header + DATA + frame(len(DATA)).trailer
    assert done.digests.layer == hashlib.sha256(framed).hexdigest()
    assert listed(tmp_path) == ["m.gguf"]


def test_an_empty_file(files: FileServer, tmp_path: Path) -> None:
    files.files["/m"] = b""
    seen: list[bytes] = []
    (done,) = fetch(one(files, tmp_path, size=0), then=lambda done: seen.append(done.file.read_bytes()))
    assert (seen, done.digests.size) == ([b""], 0)


@pytest.mark.parametrize("known", KNOWN)
def test_a_cut_connection_is_resumed(server: FileServer, tmp_path: Path, known: dict[str, Any]) -> None:
    server.failures["/m"] = [Failure(cut=5 << 20), Failure(status=503), Failure(cut=1 << 20)]
    (done,) = fetch(one(server, tmp_path, **known))
    assert done.file.read_bytes() == DATA
    assert done.digests.sha256 == SHA256
    assert sent(server) == [None, f"bytes={5 << 20}-", f"bytes={5 << 20}-", f"bytes={6 << 20}-"]


def test_an_attempt_that_won_something_is_no_failed_one(server: FileServer, tmp_path: Path) -> None:
    server.files["/m"] = data = DATA * 8
    server.failures["/m"] = [Failure(cut=9 << 20)] * 7
    assert fetch(one(server, tmp_path))[0].file.read_bytes() == data


def test_attempts_that_win_nothing_end(server: FileServer, tmp_path: Path) -> None:
    server.failures["/m"] = [Failure(cut=100)] * 99
    assert "broke off" in problem(one(server, tmp_path))
    assert len(server.requests) == TIMEOUTS.attempts


@pytest.mark.parametrize("known", KNOWN)
def test_a_server_without_ranges_begins_anew(server: FileServer, tmp_path: Path, known: dict[str, Any]) -> None:
    server.ranges = False
    server.failures["/m"] = [Failure(cut=5 << 20), Failure(cut=2 << 20)]
    assert fetch(one(server, tmp_path, **known))[0].digests.sha256 == SHA256
    assert listed(tmp_path) == ["m.gguf"]


def test_a_server_without_ranges_that_always_cuts_ends(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.failures["/m"] = [Failure(cut=5 << 20)] * 99
    problem(one(server, tmp_path))
    assert len(server.requests) < 10


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_between_two_requests_begins_anew(
    server: FileServer, tmp_path: Path, if_range: bool
) -> None:
    server.if_range = if_range
    server.failures["/m"] = [Failure(cut=5 << 20)] + [Failure(status=503)] * 9
    problem(one(server, tmp_path))
    server.failures.clear()
    server.files["/m"] = changed = DATA[::-1]
    (done,) = fetch(one(server, tmp_path))
    assert done.file.read_bytes() == changed
    assert done.digests == hash_file(done.file)


@pytest.mark.parametrize("status", [204, 205, 300, 304])
def test_an_answer_without_a_file_is_no_empty_file(server: FileServer, tmp_path: Path, status: int) -> None:
    server.failures["/m"] = [Failure(status=status)]
    assert f"/m answered {status}, without a file" in problem(one(server, tmp_path))
    assert listed(tmp_path) == []


def test_a_part_of_a_place_that_no_file_has_is_not_taken(server: FileServer, tmp_path: Path) -> None:
    far = b"9" * 5000
    absurd = b"HTTP/1.1 206 Here\r\nContent-Length: 3\r\nContent-Range: bytes %s-%s/%s\r\n\r\nabc" % (far, far, far)
    server.failures["/m"] = [Failure(cut=5 << 20), Failure(raw=absurd)]
    assert fetch(one(server, tmp_path))[0].digests.sha256 == SHA256


def test_without_validator_and_hash_nothing_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.validators = False
    server.failures["/m"] = [Failure(cut=5 << 20)]
    fetch(one(server, tmp_path))
    assert sent(server) == [None, None]
    server.requests.clear()
    (tmp_path / "m.gguf").unlink()
    server.failures["/m"] = [Failure(cut=5 << 20)]
    fetch(one(server, tmp_path, sha256=SHA256))
    assert sent(server) == [None, f"bytes={5 << 20}-"]


@pytest.mark.parametrize("known", [{}, {"sha256": SHA256}, {"size": len(DATA), "sha256": SHA256}])
def test_an_earlier_run_is_continued(server: FileServer, tmp_path: Path, known: dict[str, Any]) -> None:
    server.failures["/m"] = [Failure(cut=6 << 20)] + [Failure(status=503)] * 9
    problem(one(server, tmp_path, **known))
    assert listed(tmp_path) == ["m.gguf"]
    del server.failures["/m"][:], server.requests[:]
    (done,) = fetch(one(server, tmp_path, layer_of=frame, **known))
    assert done.digests == hash_file(done.file, frame)
    assert done.digests.sha256 == SHA256
    assert sent(server) == [f"bytes={6 << 20}-" if known else None]  # only a hash tells that it is the same file


def test_a_wrong_byte_is_named_and_only_that_file_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.files |= {"/a": b"a", "/b": b"b"}
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    server.files["/m"] = wrong
    others = [Download(f"{server.url}/{name}", tmp_path / name, name) for name in "ab"]
    message = problem(others[0], one(server, tmp_path, sha256=SHA256, size=len(DATA)), others[1])
    found = hashlib.sha256(wrong).hexdigest()
    assert f"error: my model: {server.url}/m has the sha256 {found}, and must have {SHA256}" in message
    assert listed(tmp_path) == ["a", "b"]
    assert server.count("/m") == 1


def test_a_wrong_length_is_named(server: FileServer, tmp_path: Path) -> None:
    message = problem(one(server, tmp_path, size=len(DATA) + 1))
    assert f"has {len(DATA):,} bytes, and must have {len(DATA) + 1:,}" in message
    assert listed(tmp_path) == []


def test_a_length_that_lies_is_not_believed(server: FileServer, tmp_path: Path) -> None:
    server.failures["/m"] = [Failure(length=len(DATA) + 7, cut=len(DATA))]
    assert fetch(one(server, tmp_path, sha256=SHA256))[0].file.read_bytes() == DATA


def test_a_short_body_without_length_is_not_taken_for_whole(server: FileServer, tmp_path: Path) -> None:
    server.lengths = False
    server.failures["/m"] = [Failure(cut=100)] * 99
    assert "ended after 400 of" in problem(one(server, tmp_path, size=len(DATA)))


def test_an_endless_body_ends(server: FileServer, tmp_path: Path) -> None:
    server.failures["/m"] = [Failure(endless=True)] * 9
    assert "sends more than" in problem(one(server, tmp_path, size=len(DATA)))
    assert listed(tmp_path) == []
    assert "sends more than" in problem(one(server, tmp_path), pace=Pace(limit=50 << 20))
    assert listed(tmp_path) == []
    assert len(server.requests) == 2


def test_a_drip_is_broken_off_and_resumed(server: FileServer, tmp_path: Path) -> None:
    server.failures["/m"] = [Failure(drip=0.01)]
    (done,) = fetch(one(server, tmp_path), pace=Pace(slowest=1 << 20, window=0.5))
    assert done.file.read_bytes() == DATA
    assert sent(server)[1] is not None


def test_credentials_that_are_never_taken_are_not_renewed_for_ever(server: FileServer, tmp_path: Path) -> None:
    server.failures["/m"] = [Failure(status=401)] * 99
    fresh = Tokens(f"Bearer {number}" for number in range(1000))
    assert "/m answered 401" in problem(one(server, tmp_path, login=fresh))
    assert len(server.requests) == 4


def test_a_redirect_to_another_host_takes_no_credentials(server: FileServer, tmp_path: Path) -> None:
    with file_server.serve() as front:
        front.redirects["/m"] = server.url + "/m"
        server.failures["/m"] = [Failure(cut=5 << 20)]
        (done,) = fetch(one(front, tmp_path, headers={"Authorization": f"Bearer {TOKEN}"}))
        assert done.file.read_bytes() == DATA
        assert [request.headers["authorization"] for request in front.requests] == [f"Bearer {TOKEN}"] * 2
    assert TOKEN not in str(server.requests)
    assert sent(server) == [None, f"bytes={5 << 20}-"]


def test_no_secret_is_left_or_shown(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "verbosity", console.Verbosity.VERBOSE)
    address = server.url.replace("//", f"//me:{TOKEN}@") + f"/m?X-Amz-Signature={TOKEN}"
    server.failures["/m"] = [Failure(cut=5 << 20)] + [Failure(status=503)] * 9
    secret = Download(address, tmp_path / "m", "my model", {"X-Token": TOKEN}, sha256=SHA256)
    said = problem(secret) + repr(secret.headers and secret).replace(address, "")
    said += capsys.readouterr().err + "".join(path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir())
    assert TOKEN not in said


def test_all_failures_are_told_together(server: FileServer, tmp_path: Path) -> None:
    server.failures |= {"/gone": [Failure(status=410)], "/gated": [Failure(status=401)]}
    downloads = [
        Download(f"{server.url}/{name}", tmp_path / name, f"model {name}", hint=lambda problem: f": {problem.status}?")
        for name in ("gone", "m", "gated")
    ]
    assert problem(*downloads).splitlines() == [
        f"error: model gone: {server.url}/gone answered 410 Gone: 410?",
        f"error: model gated: {server.url}/gated answered 401 Unauthorized: 401?",
    ]
    assert (tmp_path / "m").read_bytes() == DATA


def test_what_follows_a_download_may_fail(server: FileServer, tmp_path: Path) -> None:
    def then(done: Fetched) -> None:
        raise error(f"{done.download.name} does not fit")

    with pytest.raises(AikitError, match="my model does not fit"):
        fetch(*[one(server, tmp_path)], then=then)
    assert (tmp_path / "m.gguf").read_bytes() == DATA


def test_several_at_a_time(server: FileServer, tmp_path: Path) -> None:
    server.rate = 20 << 20
    server.files |= {f"/{index}": DATA[index:] for index in range(6)}
    downloads = [Download(f"{server.url}/{index}", tmp_path / str(index), str(index)) for index in range(6)]
    fetched = fetch(*downloads, jobs=6)
    assert [done.file.read_bytes() == DATA[index:] for index, done in enumerate(fetched)] == [True] * 6
    assert [done.download for done in fetched] == downloads


FETCH = """
import sys
from pathlib import Path
from aikit_nix.base import console
from aikit_nix.base.hashing import Frame
from aikit_nix.http.client import Client
from aikit_nix.models.download import fetch_all
from aikit_nix.models.origin import Download

url, folder, size, sha256 = sys.argv[1:]
downloads = [
    Download(f"{url}/{name}", Path(folder, name), name, size=int(size) or None, sha256=sha256 or None,
             layer_of=lambda size: Frame(b"h", b"t"))
    for name in ("m", "n")
]
with Client() as web:
    for done in fetch_all(downloads, web):
        print(done.digests)
"""


def start(server: FileServer, folder: Path, size: int, sha256: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", FETCH, server.url, str(folder), str(size), sha256]
    return subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("known", [True, False])
def test_kill_at_any_moment(server: FileServer, tmp_path: Path, known: bool) -> None:
    """AIKIT_KILLS says how often."""
    kills = int(os.environ.get("AIKIT_KILLS", "5"))
    server.files["/n"] = DATA
    server.rate = 4 << 20
    arguments = (len(DATA), SHA256) if known else (0, "")
    for kill in range(kills):
        seen = len(server.requests)
        process = start(server, tmp_path, *arguments)
        while len(server.requests) == seen and process.poll() is None:
            time.sleep(0.01)
        time.sleep(1.5 * kill / kills)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    server.rate = None
    process = start(server, tmp_path, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count(SHA256) == 2
    assert listed(tmp_path) == ["m", "n"]
    assert [(tmp_path / name).read_bytes() == DATA for name in ("m", "n")] == [True, True]
    assert any(sent(server)) == known


def test_ctrl_c_ends_at_once_and_can_be_resumed(server: FileServer, tmp_path: Path) -> None:
    server.files["/n"] = DATA
    server.rate = 4 << 20
    process = start(server, tmp_path, len(DATA), SHA256)
    while not (tmp_path / "m").exists() or (tmp_path / "m").stat().st_size < 2 << 20:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err.splitlines()[-1]
    server.rate = None
    seen = len(server.requests)
    process = start(server, tmp_path, len(DATA), SHA256)
    assert process.communicate()[0].count(SHA256) == 2
    assert all(sent(server)[seen:])


def test_lines_where_there_is_no_terminal(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_EVERY", 0)
    fetch(one(server, tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "my model: begins"
    assert any(line.startswith("9.4 MB of 9.4 MB (100 %), ") for line in lines)
    assert lines[-1].startswith("my model: done, 9.4 MB in ")
    monkeypatch.setattr(console, "verbosity", console.Verbosity.QUIET)
    (tmp_path / "m.gguf").unlink()
    fetch(one(server, tmp_path))
    assert capsys.readouterr().err == ""


def test_bars_on_a_terminal(server: FileServer, tmp_path: Path) -> None:
    import pty

    server.files["/n"] = DATA
    leader, follower = pty.openpty()
    argv = [sys.executable, "-c", FETCH, server.url, str(tmp_path), str(len(DATA)), SHA256]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(argv, stderr=follower, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(follower)
        seen = b""
        try:
            while block := os.read(leader, 4096):
                seen += block
        except OSError:
            pass  # the end of a terminal
    os.close(leader)
    assert process.returncode == 0
    assert b"total" in seen
    assert b"100%" in seen
