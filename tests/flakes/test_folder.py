"""The folder holds the old flake or the new one, whatever fails."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import folder, plan
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.write import Files
from support.flakes import PINNED


def rendered(packages: plan.Packages = plan.Packages.DEBIAN, more: bytes = b"") -> Files:
    planned, _ = plan.make(parse(PINNED + more, "aikitfile.yaml")[0], plan.Options(packages=packages))
    return flake.render(planned, Choices(packages=packages))


NIXPKGS = rendered(plan.Packages.NIXPKGS)
DEBIAN = rendered()


def tree(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def whole(files: Files) -> dict[str, bytes]:
    return dict(files.content) | ({"flake.lock": files.lock} if files.lock else {})


def test_the_written_folder_is_what_was_rendered(tmp_path: Path) -> None:
    assert folder.write(DEBIAN, tmp_path / "out").written == ("aikit", "flake.nix")
    assert tree(tmp_path / "out") == whole(DEBIAN)


def test_writing_again_replaces_what_we_wrote(tmp_path: Path) -> None:
    folder.write(NIXPKGS, tmp_path)
    (tmp_path / "own.txt").write_text("the user's")
    done = folder.write(DEBIAN, tmp_path)
    assert (done.backups, done.kept) == ((), ())
    lock = {"flake.lock": NIXPKGS.lock, "own.txt": b"the user's"}
    assert tree(tmp_path) == {**whole(DEBIAN), **lock}


def test_the_lock_is_the_users(tmp_path: Path) -> None:
    folder.write(NIXPKGS, tmp_path)
    (tmp_path / "flake.lock").write_text("updated by nix")
    folder.write(rendered(plan.Packages.NIXPKGS, b"debug: true\n"), tmp_path)
    assert (tmp_path / "flake.lock").read_text() == "updated by nix"


def test_an_edited_flake_is_left_and_an_edited_library_set_aside(tmp_path: Path) -> None:
    folder.write(DEBIAN, tmp_path)
    with (tmp_path / "flake.nix").open("a") as file:
        file.write("# mine\n")
    with (tmp_path / "aikit/default.nix").open("a") as file:
        file.write("# mine\n")
    before = tree(tmp_path)
    done = folder.write(DEBIAN, tmp_path)
    assert done.kept == (tmp_path / "flake.nix",)
    assert done.backups == (tmp_path / "aikit~",)
    assert tree(tmp_path)["flake.nix"] == before["flake.nix"]
    assert tree(tmp_path)["aikit~/default.nix"] == before["aikit/default.nix"]
    done = folder.write(DEBIAN, tmp_path, force=True)
    assert done.backups == (tmp_path / "flake.nix~",)
    assert tree(tmp_path)["flake.nix~"] == before["flake.nix"]
    assert tree(tmp_path)["flake.nix"] == DEBIAN.content["flake.nix"]


@pytest.mark.parametrize("foreign", ["flake.nix", "aikit/mine.nix"])
def test_what_others_wrote_is_refused_or_set_aside(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("{ }")
    with pytest.raises(AikitError, match="not written by aikit-nix"):
        folder.write(DEBIAN, tmp_path)
    assert tree(tmp_path) == {foreign: b"{ }"}
    folder.write(DEBIAN, tmp_path, force=True)
    top, slash, rest = foreign.partition("/")
    assert tree(tmp_path) == {**whole(DEBIAN), f"{top}~{slash}{rest}": b"{ }"}


def test_a_huge_foreign_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "flake.nix").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AikitError, match="not written by aikit-nix"):
        folder.write(DEBIAN, tmp_path)


@pytest.mark.parametrize("link", ["/dev/zero", "pipe"])
def test_seals_that_never_end_are_none(tmp_path: Path, link: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder.write(DEBIAN, tmp_path / "out")
    (tmp_path / "out/aikit/seals.json").unlink()
    (tmp_path / "out/aikit/seals.json").symlink_to(tmp_path / link)
    with pytest.raises(AikitError, match="not written by aikit-nix"):
        folder.write(DEBIAN, tmp_path / "out")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(AikitError, match="no folder"):
        folder.write(DEBIAN, tmp_path / "out")


# What Python tells an audit hook before it asks the system for it; renameat2 is looked up before each call
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "ctypes.dlsym"}


def run_faulty(out: Path, how: str, at: int) -> tuple[int, list[str]]:
    """`folder.write` in a process of its own, in which the Nth change of the file system fails in some way.

    Gives the exit status and the changes that there were.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        events: list[str] = []

        def faulty(event: str, args: tuple[Any, ...]) -> None:
            if event not in CHANGES and not (event == "open" and args[2] & os.O_ACCMODE):
                return
            events.append(event)
            count = len(events)
            if count == at and how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if count == at and how == "interrupt":
                raise KeyboardInterrupt
            if count == at:
                raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))

        sys.addaudithook(faulty)
        status = 0
        try:
            folder.write(DEBIAN, out)
        except (AikitError, KeyboardInterrupt):
            status = 1
        finally:
            os.write(write, " ".join(events).encode())
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        events = pipe.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), events


@pytest.mark.parametrize("before", ["nothing", "another", "edited"])
@pytest.mark.parametrize("how", ["error", "interrupt", "kill"])
def test_whatever_fails_the_folder_is_old_or_new_or_the_next_run_mends_it(
    tmp_path: Path, how: str, before: str
) -> None:
    def prepare(out: Path) -> dict[str, bytes]:
        if before != "nothing":
            folder.write(NIXPKGS, out)
        if before == "edited":
            (out / "aikit/default.nix").write_text("# mine")
        return tree(out)

    prepare(tmp_path / "count")
    _, events = run_faulty(tmp_path / "count", "error", 0)
    new = tree(tmp_path / "count")
    assert new.items() >= whole(DEBIAN).items()
    assert events.count("open") >= len(DEBIAN.content)
    # Of the many files that are written, and removed, one after the other, the first and the last
    kinds = ["", *events, ""]
    for at in (at for at in range(1, len(events) + 1) if not kinds[at - 1] == kinds[at] == kinds[at + 1]):
        out = tmp_path / f"{at}"
        old = prepare(out)
        status, _ = run_faulty(out, how, at)
        if how == "kill":
            assert status == -signal.SIGKILL, f"step {at}"
        else:
            # What is left of the old one is cleared away at the end: that may fail, and the next run does it
            assert {name: text for name, text in tree(out).items() if not name.startswith(".")} in (old, new)
        done_again = folder.write(DEBIAN, out)
        assert done_again.kept == (), f"step {at}"
        assert tree(out) == new, f"step {at}"
        assert not list(out.glob(".aikit-nix*"))


def test_a_file_system_that_cannot_exchange_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS and FUSE know no RENAME_EXCHANGE."""

    class Libc:
        @staticmethod
        def renameat2(*_: object) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: Libc)
    folder.write(NIXPKGS, tmp_path)
    (tmp_path / "aikit/default.nix").write_text("# mine")
    done = folder.write(DEBIAN, tmp_path)
    assert done.backups == (tmp_path / "aikit~",)
    assert (tmp_path / "aikit~/default.nix").read_text() == "# mine"
    found = tree(tmp_path)
    assert {name: text for name, text in found.items() if not name.startswith("aikit~/")} == {
        **whole(DEBIAN),
        "flake.lock": NIXPKGS.lock,
    }


def test_two_at_once_leave_one_of_the_two(tmp_path: Path) -> None:
    for round_ in range(20):
        out = tmp_path / str(round_)
        threads = [threading.Thread(target=folder.write, args=(files, out)) for files in (NIXPKGS, DEBIAN)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = tree(out)
        lock = found.pop("flake.lock", None)
        assert found in (dict(NIXPKGS.content), dict(DEBIAN.content))
        assert lock in (None, NIXPKGS.lock)


# --- What Nix sees


def test_nix_gets_the_flakes_own_files_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "a #?%é" / "flake"
    folder.write(DEBIAN, out)
    for name in ("model.gguf", "cosign.key", ".git/config", "deep/other", "aikit/__pycache__/x.pyc"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("secret")
    with folder.staged(out) as staged:
        there = Path(staged.reference.removeprefix("path:"))
        assert (staged.folder, there.is_absolute()) == (None, True)
        assert tree(there) == whole(DEBIAN)
    assert not there.exists()


def test_where_temporary_folders_have_odd_names_nix_is_run_in_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Nix takes every folder's name in a flake's reference."""
    folder.write(DEBIAN, tmp_path / "out")
    (tmp_path / "a #?").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a #?"))
    with folder.staged(tmp_path / "out") as staged:
        assert staged.reference == "path:."
        assert staged.folder
        assert tree(staged.folder) == whole(DEBIAN)


def test_a_flake_that_cannot_be_written_to_is_as_good(tmp_path: Path) -> None:
    folder.write(DEBIAN, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "out").chmod(0o555)
    with folder.staged(tmp_path / "out") as staged:
        assert tree(Path(staged.reference.removeprefix("path:"))) == whole(DEBIAN)


@pytest.mark.parametrize("plan", ["", "[]", '{"sources": [{"path": "/dev/zero", "sha256": "0"}]}', '{"sources": 1}'])
def test_a_plan_may_say_anything_of_what_it_was_made_from(tmp_path: Path, plan: str) -> None:
    folder.write(DEBIAN, tmp_path)
    (tmp_path / "aikit/plan.json").write_text(plan)
    folder.refuse_stale(tmp_path)
