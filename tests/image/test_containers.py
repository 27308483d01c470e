"""Container engines: which of them works here, and how little a container gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.image import containers
from aikit_nix.image.containers import CTR, DOCKER, NERDCTL, PODMAN

ALL = (PODMAN, DOCKER, NERDCTL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH but for a shell."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, program: str, status: int) -> None:
    """A stand-in, which works where the status is 0."""
    (folder / program).write_text(
        f'#!/bin/sh\n[ "$*" = {containers.ENGINES[program].works[0]} ] || exit 9\nexit {status}\n'
    )
    (folder / program).chmod(0o755)


def test_the_first_that_works_is_taken(here: Path) -> None:
    assert containers.choose(None, ALL) is None
    install(here, "docker", 1)  # there, and its daemon is not
    install(here, "nerdctl", 0)
    assert containers.choose(None, ALL) is NERDCTL
    install(here, "docker", 0)
    assert containers.choose(None, ALL) is DOCKER
    install(here, "podman", 0)
    assert containers.choose(None, ALL) is PODMAN


def test_one_that_is_named_is_taken_or_the_end(here: Path) -> None:
    install(here, "podman", 0)
    install(here, "ctr", 0)
    assert containers.choose("ctr", ALL) is CTR
    with pytest.raises(AikitError, match="docker is not installed"):
        containers.choose("docker", ALL)
    install(here, "docker", 1)
    with pytest.raises(AikitError, match=r"docker does not work \(`docker info` says why\)"):
        containers.choose("docker", ALL)


def test_of_each_it_is_said_why_it_does_not_work(here: Path) -> None:
    assert containers.none_works(ALL) == "podman, docker, nerdctl are not installed"
    install(here, "docker", 1)
    assert containers.none_works(ALL) == (
        "docker does not work (`docker info` says why); podman, nerdctl are not installed"
    )


@pytest.mark.parametrize("engine", ALL, ids=lambda engine: str(engine.program))
def test_a_container_gets_no_more_than_it_needs(engine: containers.ContainerEngine) -> None:
    words = engine.run("me/llama:avx2", 8081, ("--threads", "a b"), gpu=False)
    assert words[-4:] == ["127.0.0.1:8081:8080", "me/llama:avx2", "--threads", "a b"]  # nobody else's machine
    assert "--read-only" in words
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert "--privileged" not in words
    assert set(engine.run("me/llama:avx2", 8081, ("--threads", "a b"), gpu=True)) - set(words) == {engine.gpu}
