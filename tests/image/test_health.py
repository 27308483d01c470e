"""The image's own health check, asked by the engines that it is written for. Its program alone: tests/nix/test_start.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import dockerd, flakes, podman

SECONDS = 60


@pytest.fixture(scope="module")
def archive(tiny_flake: Path) -> Path:
    return flakes.build(tiny_flake)


@pytest.fixture
def port() -> str:
    """Not the server's own: the check must follow it there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def until(answer: Callable[[], str], wanted: str) -> None:
    for _ in range(SECONDS * 2):
        if (seen := answer()) == wanted:
            return
        time.sleep(0.5)
    pytest.fail(f"it is {seen} for {SECONDS} seconds, not {wanted}")


def test_docker_says_whether_the_server_is_well(archive: Path, port: str) -> None:
    if reason := dockerd.missing():
        pytest.skip(reason)
    with _docker() as docker:
        docker("load", "--input", str(archive))
        options = ["--read-only", "--network", "host", "--health-interval", "1s", "--health-timeout", "2s"]
        container = docker("run", "--detach", *options, "--health-retries", "1", "tiny:avx", "--port", port)
        try:

            def health() -> str:
                return docker("inspect", "--format", "{{.State.Health.Status}}", container)

            until(health, "healthy")
            docker("kill", "--signal", "STOP", container)
            until(health, "unhealthy")
        finally:
            docker("rm", "--force", container)


@contextmanager
def _docker() -> Iterator[Callable[..., str]]:
    with dockerd.serve() as env:

        def run(*arguments: str) -> str:
            argv = ["docker", *arguments]
            done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        yield run


def test_podman_says_whether_the_server_is_well(
    archive: Path, port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    # Without systemd: no timer, and no limits that only a full root may set.
    monkeypatch.setenv("DISABLE_HC_SYSTEMD", "true")
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    with podman.storage() as engine:
        engine.run("load", "--input", str(archive))
        container = _started(engine, port)
        try:

            def health() -> str:
                asked = subprocess.run(
                    [*engine.argv, "healthcheck", "run", container], capture_output=True, check=False
                )
                said = json.loads(engine.run("inspect", container, "--format", "{{json .State.Healthcheck}}"))
                assert (asked.returncode == 0) is (said["Log"][-1]["ExitCode"] == 0)
                return "well" if asked.returncode == 0 else "not well"

            until(health, "well")
            engine.run("kill", "--signal", "STOP", container)
            until(health, "not well")
        finally:
            engine.run("rm", "--force", "--time", "0", container)


def _started(engine: podman.Podman, port: str) -> str:
    """A container, by the first of the runtimes that can start one here."""
    problems = []
    for runtime in ("crun", "runc"):
        try:
            options = ["--runtime", runtime, "run", "--detach", "--read-only", "--network", "host"]
            return engine.run(*options, "localhost/tiny:avx", "--port", port).strip()
        except AssertionError as problem:
            problems.append(str(problem).strip().splitlines()[-1])
    pytest.skip(f"podman starts no container here: {problems}")
