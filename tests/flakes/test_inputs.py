"""What a flake downloads is brought as the user, whatever a Nix daemon sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import flakes, fresh

NOBODY = 65534
# The machine's own mirror is nothing that the daemon could reach
DAEMON = 'http_proxy=http://127.0.0.1:1 AIKIT_DEBIAN_MIRROR= nix-daemon & trap "kill $!" EXIT'
WAIT = "until [ -S /nix/var/nix/daemon-socket/socket ]; do sleep 0.1; done"
AS_USER = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env HOME=$PWD XDG_CACHE_HOME=$PWD/cache"
PATHS = ":".join(sys.path)


def python() -> str:
    """A Python that another user may run, with what it needs of ours. Skips where there is none."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a Nix daemon for somebody else")
    if reason := fresh.problem():
        pytest.skip(reason)
    for program in (sys.executable, "/usr/bin/python3"):
        argv = [
            *AS_USER.replace("$PWD", "/").split(),
            f"PYTHONPATH={PATHS}",
            program,
            "-c",
            "import aikit_nix.cli, httpx, jinja2, rich, yaml",
        ]
        if subprocess.run(argv, cwd="/", capture_output=True, check=False).returncode == 0:
            return program
    return pytest.skip("another user cannot read this checkout, or the Python that runs it")


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own are ours alone."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.usefixtures("nix")
def test_behind_a_daemon_a_user_builds_from_the_mirror_of_this_machine(
    tiny_model: Path, tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = python()
    flakes.environment(tmp_path, monkeypatch)
    shutil.copy(tiny_model, theirs / "tiny.gguf")
    (theirs / "aikitfile.yaml").write_text(flakes.AIKITFILE)
    for path in (theirs, *theirs.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    run = f'{AS_USER} PYTHONPATH="{PATHS}" "{program}" -m aikit_nix.cli'
    script = f"""
        set -e
        {DAEMON}
        {WAIT}
        {run} gen --packages debian
        {run} fetch
        {AS_USER} nix build path:flake#manifest --no-link
        echo "# another" >> aikitfile.yaml
        rm -rf flake
        {run} build --packages debian --runtime avx512
    """
    done = fresh.run(tmp_path / "nix", "bash", "-c", script, cwd=theirs, network=True)
    assert done.returncode == 0, done.stderr
    assert "next: aikit-nix fetch && nix build path:flake" in done.stdout
    assert (theirs / "result").is_symlink()
