"""The bounded reader and the atomic writer."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from aikit_nix.base import files
from aikit_nix.base.errors import AikitError

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)
    assert files.read_bounded(tmp_path / "link", 5) == b"12345"
    with pytest.raises(AikitError, match="more than 4 bytes"):
        files.read_bounded(file, 4)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", "no such file or directory: write one"),
        ("folder", "it is a folder"),
        ("pipe", "it is a pipe"),
        ("socket", "it is a socket"),
        ("/dev/zero", "it is a device"),
        ("a\0b", "no file name"),
        ("loop", "too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_never_read(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))  # the whole path may be too long for one
        with pytest.raises(AikitError, match=says):
            files.read_bounded(tmp_path / name, 10, ": write one")


def test_writing_keeps_the_mode_and_the_link(tmp_path: Path) -> None:
    file = tmp_path / "f"
    files.write_atomic(file, b"1")
    umask = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "g", b"1")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o640
    file.chmod(0o604)
    (tmp_path / "link").symlink_to(file)
    files.write_atomic(tmp_path / "link", b"2")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode), (tmp_path / "link").is_symlink()) == (
        b"2",
        0o604,
        True,
    )
    files.write_atomic(file, b"3", 0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"f", "g", "link"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device"), OSError(5, "I/O")])
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, call: str
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    expected = AikitError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        files.write_atomic(file, b"new")
    if isinstance(failure, OSError):
        assert re.match(f"error: cannot write {re.escape(str(file))}: ", str(raised.value))
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"old", [file])


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "pipe", "a pipe"),
        (tmp_path, "a folder"),
        (Path("/dev/full"), "a device"),
        (tmp_path / "pipe/f", "not a directory"),
    ):
        with pytest.raises(AikitError, match=f"cannot write {path}: .*{says}"):
            files.write_atomic(path, b"")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@ROOT_ONLY
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        os.seteuid(65534)
        try:
            files.write_atomic(tmp_path / "f", b"new")
        except AikitError as refused:
            os._exit(0 if "permission denied" in str(refused) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "f").read_bytes() == b"old"


def test_what_a_killed_run_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from aikit_nix.base import files\n"
        "os.fsync = lambda _: (print('there', flush=True), signal.pause())\n"
        "files.write_whole(Path(sys.argv[1]), b'new')"
    )
    target = tmp_path / "x"
    with subprocess.Popen([sys.executable, "-c", script, target], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (writing,) = tmp_path.iterdir()
        files.write_whole(target, b"mine")
        assert sorted(tmp_path.iterdir()) == [writing, target]
        other.kill()
    files.write_whole(target, b"again")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"again"


def test_a_scratch_folder_goes_with_its_run_and_with_the_next_one_where_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        "import signal, sys, tempfile; from aikit_nix.base import files\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "with files.scratch() as folder:\n"
        "    (folder / 'x').write_text('x'); print(folder, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        os.utime(theirs, (1, 1))
        with files.scratch() as mine:
            assert sorted(tmp_path.iterdir()) == sorted([mine, theirs])
        assert list(tmp_path.iterdir()) == [theirs]
        other.kill()
    (tmp_path / f"{files.SCRATCH}link").symlink_to(Path.home())
    with files.scratch() as mine:
        assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / f"{files.SCRATCH}link"])
    assert Path.home().is_dir()


def test_who_has_no_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(AikitError, match="set HOME"):
        files.cache_folder()
