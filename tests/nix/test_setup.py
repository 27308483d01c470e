"""Which set-ups of Nix cannot build, and what each is told."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.nix import setup
from support.flakes import PINNED

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may become another user")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with `nix` and nothing else: its /nix is in this folder, which everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield _machine(Path(folder), monkeypatch)


def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(setup, "_STORE", tmp_path / "nix")
    monkeypatch.setattr(setup, "_DAEMON_SOCKET", tmp_path / "nix/var/nix/daemon-socket/socket")
    monkeypatch.setattr(setup, "_PLACES", ())
    monkeypatch.delenv("NIX_REMOTE", raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nix").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def as_user(machine: Path) -> str | None:
    """What a user without rights is told. The machine's folders are read in a process of that user's own."""
    code = (
        "import os, sys; from pathlib import Path; from aikit_nix.nix import setup\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "setup._STORE = Path(sys.argv[1]) / 'nix'; setup._PLACES = ()\n"
        "setup._DAEMON_SOCKET = setup._STORE / 'var/nix/daemon-socket/socket'\n"
        "print(setup.problem() or '')"
    )
    done = subprocess.run([sys.executable, "-c", code, machine], capture_output=True, text=True, check=True)
    return done.stdout.strip() or None


def test_no_nix(machine: Path) -> None:
    (machine / "bin/nix").unlink()
    assert "`nix` is missing: install Debian's nix-bin" in str(setup.problem())


@ROOT_ONLY
def test_root_needs_no_store(machine: Path) -> None:
    assert setup.problem() is None


@ROOT_ONLY
def test_a_user_without_a_store_is_told_to_make_one(machine: Path) -> None:
    assert "there is no Nix store: run `sudo install -d -o 65534 -g 65534" in str(as_user(machine))


@ROOT_ONLY
def test_a_store_of_roots_wants_a_daemon(machine: Path) -> None:
    (machine / "nix/store").mkdir(parents=True)
    assert "the Nix store is root's and no Nix daemon runs: start it" in str(as_user(machine))


@ROOT_ONLY
def test_a_user_outside_of_the_daemons_group(machine: Path) -> None:
    (machine / "nix/var/nix/daemon-socket").mkdir(parents=True)
    (machine / "nix/var/nix/daemon-socket").chmod(0o700)
    assert "run `sudo adduser nobody nix-users`, then log in again" in str(as_user(machine))


@ROOT_ONLY
def test_a_daemon_that_does_not_run(machine: Path) -> None:
    (machine / "nix/var/nix/daemon-socket").mkdir(parents=True)
    assert "the Nix daemon does not run: start it" in str(as_user(machine))


def test_without_nix_nothing_is_downloaded_for_its_store(tmp_path: Path) -> None:
    source = "models: [{name: m, source: 'http://127.0.0.1:9/m.gguf'}]"
    (tmp_path / "aikitfile.yaml").write_text(f"apiVersion: v1alpha1\n{source}\n")
    argv = [sys.executable, "-m", "aikit_nix", "lock"]
    env = os.environ | {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "`nix` is missing: install Debian's nix-bin" in done.stderr


@ROOT_ONLY
@pytest.mark.skipif(setup.has_build_users(), reason="this machine has build users")
@pytest.mark.parametrize("words", [["gen", "--packages", "debian"], ["fetch"]])
def test_root_without_build_users_is_told_before_anything_is_done(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "aikitfile.yaml").write_bytes(PINNED)
    env = {name: value for name, value in os.environ.items() if name != "NIX_CONFIG"} | {"NIX_CONF_DIR": str(tmp_path)}
    argv = [sys.executable, "-m", "aikit_nix", *words]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"echo 'build-users-group =' >> {tmp_path}/nix.conf" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["aikitfile.yaml"]
    if words == ["fetch"]:
        return
    (tmp_path / "nix.conf").write_text("build-users-group =\n")
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
