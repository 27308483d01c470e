"""`aikit-nix load`: into the engines that are here, and what becomes of those that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aikit_nix.image import find, layout
from support import podman
from support.command import aikit_nix
from support.image import unpack

# Takes the place of podman and docker.
ENGINE = '#!/bin/sh\ncase $1 in info | version) exit {info} ;; esac\necho "$0 $$" >> {folder}/pids\n{load}\n'


def install(folder: Path, program: str, load: str, info: int = 0) -> dict[str, str]:
    """Stand-ins for engines, first on the PATH that is given back."""
    for name in ("docker", "podman", "nerdctl", "ctr"):
        (folder / name).write_text(ENGINE.format(folder=folder, load=load, info=info if name == program else 1))
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def digest(flake: Path) -> str:
    return layout.read_layout(find.build(str(flake), "manifest")).config_digest


def test_podman_has_the_image_afterwards(tiny_flake: Path, tmp_path: Path) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    with podman.storage() as engine:
        (tmp_path / "podman").write_text(f'#!/bin/sh\nexec {" ".join(["/usr/bin/podman", *engine.argv[1:]])} "$@"\n')
        (tmp_path / "podman").chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = aikit_nix("load", "--with", "podman", "--flake", tiny_flake, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert engine.run("image", "inspect", "--format", "sha256:{{.Id}}", "tiny:avx").strip() == digest(tiny_flake)
    assert "next: podman run" in done.stdout


def test_docker_and_containerd_have_the_image_afterwards(
    tiny_flake: Path, docker: dict[str, str], tmp_path: Path
) -> None:
    def said(*argv: str) -> str:
        return subprocess.run(argv, env=docker, check=True, capture_output=True, text=True).stdout

    for program in ("docker", "ctr"):
        done = aikit_nix("load", "--with", program, "--flake", tiny_flake, cwd=tmp_path, env=docker)
        assert done.returncode == 0, done.stderr
    assert said("docker", "image", "inspect", "--format", "{{.Id}}", "tiny:avx").strip() == digest(tiny_flake)
    (listed,) = [line.split() for line in said("ctr", "images", "ls").splitlines() if "library/tiny:avx" in line]
    assert listed[2] == layout.read_layout(find.build(str(tiny_flake), "manifest")).digest


def test_the_engine_that_works_gets_the_whole_image(tiny_flake: Path, tmp_path: Path) -> None:
    env = install(tmp_path, "nerdctl", f"exec cat > {tmp_path}/image.tar")
    done = aikit_nix("load", "--flake", tiny_flake, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "loaded tiny:avx into nerdctl" in done.stdout
    assert unpack(tmp_path / "image.tar").digest == digest(tiny_flake)


@pytest.mark.parametrize("load", ["echo no room left; exit 3", "cat > /dev/null; echo no room left; exit 3"])
def test_what_the_engine_says_is_said(tiny_flake: Path, tmp_path: Path, load: str) -> None:
    env = install(tmp_path, "docker", load)
    done = aikit_nix("load", "--flake", tiny_flake, cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "error: `docker` failed with status 3: no room left"


def test_without_an_engine_it_says_so(tiny_flake: Path, tmp_path: Path) -> None:
    env = install(tmp_path, "podman", "exit 0", info=1)
    done = aikit_nix("load", "--flake", tiny_flake, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "error: no container engine: docker does not work (`docker info` says why); podman does" in done.stderr
    done = aikit_nix("load", "--with", "podman", "--flake", tiny_flake, cwd=tmp_path, env=env)
    assert "error: podman does not work (`podman info` says why)" in done.stderr


@pytest.mark.parametrize("signal", [2, 9, 15])
def test_killed_in_mid_load_nothing_is_left(tiny_flake: Path, tmp_path: Path, signal: int) -> None:
    """The engine reads a part and waits; it gets the end of a torn archive, and whoever wrote it a broken pipe."""
    env = install(tmp_path, "podman", f"head -c 100000 > {tmp_path}/part; sleep 1; exec cat > {tmp_path}/rest")
    argv = [sys.executable, "-m", "aikit_nix.cli", "load", "--flake", str(tiny_flake)]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = tmp_path / "part"
    while not (part.exists() and part.stat().st_size == 100000):
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal)
    process.communicate(timeout=20)
    for _ in range(100):
        if not any(alive(int(child)) for child in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the children live on")
    rest = tmp_path / "rest"
    assert not rest.exists() or b"manifest.json" not in rest.read_bytes()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
