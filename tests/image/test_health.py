"""The image's own health check, asked by the engines that it is written for. Its program alone: tests/nix/test_start.py."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import flakes, podman

SECONDS = 60


@pytest.fixture(scope="module")
def archive(tiny_flake: Path) -> Path:
    return flakes.build(tiny_flake, "archive")


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


def of_the_machine(problem: AssertionError) -> str:
    """Why no container starts on this machine, whatever the image. Raises the problem where it is another one."""
    last = str(problem).strip().splitlines()[-1]
    if re.search(r"cgroup|rlimit|operation not permitted|namespace|mount", last, re.IGNORECASE):
        return last
    raise problem


def test_docker_says_whether_the_server_is_well(archive: Path, docker: dict[str, str], port: str) -> None:
    def run(*arguments: str) -> str:
        argv = ["docker", *arguments]
        done = subprocess.run(argv, env=docker, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def health() -> str:
        return run("inspect", "--format", "{{.State.Health.Status}}", container)

    run("load", "--input", str(archive))
    options = ["--read-only", "--network", "host", "--health-interval", "1s", "--health-timeout", "2s"]
    try:
        container = run("run", "--detach", *options, "--health-retries", "1", "tiny:avx", "--port", port)
    except AssertionError as problem:
        pytest.skip(f"docker starts no container here: {of_the_machine(problem)}")
    try:
        until(health, "healthy")
        run("kill", "--signal", "TSTP", container)
        until(health, "unhealthy")
    finally:
        run("rm", "--force", container)


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
            engine.run("kill", "--signal", "TSTP", container)
            until(health, "not well")
        finally:
            engine.run("rm", "--force", "--time", "0", container)


def _started(engine: podman.Podman, port: str) -> str:
    """A container, by the first of the runtimes that can start one here."""
    problems = []
    for runtime in podman.RUNTIMES:
        try:
            options = ["--runtime", runtime, "run", "--detach", "--read-only", "--network", "host"]
            return engine.run(*options, "localhost/tiny:avx", "--port", port).strip()
        except AssertionError as problem:
            problems.append(of_the_machine(problem))
    pytest.skip(f"podman starts no container here: {problems}")
