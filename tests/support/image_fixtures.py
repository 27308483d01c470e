"""What tests of images share: a flake on Debian's packages with a tiny model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from aikit_nix.image import layout
from support import dockerd, fake_registry, flakes, registry
from support.command import aikit_nix
from support.fake_registry import FakeRegistry
from support.flakes import Project

AIKITFILE = "apiVersion: v1alpha1\nruntime: avx\nmodels:\n  - {name: tiny, source: tiny.gguf}\n"


@pytest.fixture(scope="session")
def tiny_flake(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the flake; the aikitfile and the model are in the one above."""
    folder = tmp_path_factory.mktemp("flake")
    shutil.copy(tiny_model, folder / "tiny.gguf")
    (folder / "aikitfile.yaml").write_text(AIKITFILE)
    with pytest.MonkeyPatch.context() as patch:
        flakes.environment(folder, patch)
        generate(folder)
        yield folder / "flake"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of Debian's docker-registry, with nothing in it."""
    if reason := registry.missing():
        pytest.skip(reason)
    (tmp_path / "registry").mkdir()
    with registry.serve(tmp_path / "registry") as found:
        yield found.address


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that may be told to behave otherwise."""
    with fake_registry.serve() as running:
        yield running


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory of other pushes, no logins but those in auth.json, no proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    (tmp_path / "auth.json").write_text("{}")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def docker() -> Iterator[dict[str, str]]:
    """The environment in which docker and ctr find a daemon with nothing in it."""
    if reason := dockerd.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            named = stack.enter_context(dockerd.serve())
        except RuntimeError as problem:
            pytest.skip(str(problem))
        yield {**os.environ, **named}


@pytest.fixture(scope="session")
def tiny_project(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The same with a lock, all in one folder, as users have it."""
    with pytest.MonkeyPatch.context() as patch:
        yield flakes.write(tmp_path_factory.mktemp("project"), tiny_model, patch)


@pytest.fixture(scope="session")
def shared_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry that keeps what tests push."""
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.serve(tmp_path_factory.mktemp("registry")) as found:
        yield found.address


@pytest.fixture(scope="session")
def pushed(tiny_project: Project, shared_address: str) -> str:
    """The name of tiny_project's image in that registry."""
    done = tiny_project.run("push", f"{shared_address}/a/tiny:1")
    assert done.returncode == 0, done.stderr
    return f"{shared_address}/a/tiny:1"


def manifest_digest(project: Project) -> str:
    """What the image of a flake is called in a registry."""
    return str(layout.read_layout(project.build("manifest")).digest)


def generate(folder: Path, *options: str) -> Path:
    """The flake of the folder's aikitfile."""
    done = aikit_nix("gen", "--packages", "debian", "--flake", "flake", *options, cwd=folder, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return folder / "flake"
