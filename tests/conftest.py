"""Fixtures that more than one test module uses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from aikit_nix.base import data
from aikit_nix.http import client as http
from aikit_nix.nix import setup
from nixpkgs import newer_nix, toolchain
from support import container, debian_archive, debian_lock, downloads, file_server, hugging_face, nix_env, tiny_gguf
from support.library import Library
from support.web import TIMEOUTS

# Fixtures of tests about images, which several rooms have.
pytest_plugins = ["support.image_fixtures"]


# What starts Nix, a server or a container: `make test-quick` does without.
STARTED = {
    *("nix", "library", "files", "server", "hub", "web", "archive", "signed_archive", "address", "shared_address"),
    *("bubblewrap", "docker", "newer_programs", "nixpkgs", "debian_nixpkgs", "certificate"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="Leave out the tests that start Nix or a server.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        items[:] = [item for item in items if STARTED.isdisjoint(getattr(item, "fixturenames", ()))]


def pytest_configure() -> None:
    # A shell's background jobs ignore SIGINT, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # No pin grows old while the tests stay as they are.
    os.environ["SOURCE_DATE_EPOCH"] = "1"
    # Properties see the same inputs in each run, however busy the machine is: `make fuzz` looks for new ones.
    settings.register_profile("test", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("test")


@pytest.fixture(scope="session", autouse=True)
def nix_environment() -> Iterator[None]:
    """The environment in which Nix builds here, if it does: a bare machine's Nix has no build users."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nix_env.environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def nix() -> None:
    """For tests that run Nix, or code that does."""
    if problem := setup.problem():
        pytest.skip(problem)


@pytest.fixture(scope="session")
def newer_programs(nix: None) -> Path:
    """The folder of Debian 13's Nix, for what the machine's own older one is not enough for."""
    try:
        programs = newer_nix.programs(toolchain.REPOSITORY / "build/newer-nix")
    except newer_nix.NoNewerNixError as reason:
        pytest.skip(str(reason))
    if programs is None:
        pytest.skip("the machine's own Nix is not older than Debian 13's")
    return programs


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """For tests that start an image with `support.container`."""
    if problem := container.missing():
        pytest.skip(problem)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF that always answers `support.tiny_gguf.SENTENCE`."""
    return tiny_gguf.make(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    """A GGUF that is in no store yet."""
    file = tiny_gguf.make(tmp_path / "made.gguf", name=os.urandom(8).hex())
    data = file.read_bytes()
    file.unlink()
    return data


@pytest.fixture
def files() -> Iterator[file_server.FileServer]:
    """An HTTP server on loopback: put bytes into `files.files["/path"]`, fetch `files.url + "/path"`."""
    with file_server.serve() as server:
        yield server


@pytest.fixture
def server(files: file_server.FileServer) -> file_server.FileServer:
    """A file server that has `support.downloads.DATA` as /m."""
    files.files["/m"] = downloads.DATA
    return files


@pytest.fixture(scope="session")
def signed_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[debian_archive.Archive]:
    if problem := debian_archive.missing():
        pytest.skip(problem)
    with debian_archive.serve(tmp_path_factory.mktemp("gpg")) as running:
        yield running


@pytest.fixture
def archive(signed_archive: debian_archive.Archive, monkeypatch: pytest.MonkeyPatch) -> debian_archive.Archive:
    """A Debian archive with a signed index for `debian.renew`."""
    monkeypatch.delenv("http_proxy", raising=False)
    signed_archive.server.files.clear()
    signed_archive.server.failures.clear()
    signed_archive.publish(debian_archive.INDEX)
    return signed_archive


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is missing: it makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]  # noqa: RUF005
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Client]:
    """An impatient HTTP client, past the proxies of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with http.Client(TIMEOUTS) as client:
        yield client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hugging_face.HuggingFace]:
    """A stand-in for Hugging Face, which HF_ENDPOINT names; no token, and a cache of its own."""
    with hugging_face.serve() as server:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server


@pytest.fixture(scope="module")
def library(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The Nix library, to ask it for images on Debian's packages."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(data.NIX, folder / "nix")
    if lock := debian_lock.usable(folder, print):
        shutil.copy(lock, folder / "nix/packages/debian/lock.json")
    return Library(folder / "nix")


@pytest.fixture(scope="session")
def nixpkgs() -> toolchain.Nixpkgs:
    """The nixpkgs checkout that NIXPKGS names, as it is: to evaluate with."""
    try:
        return toolchain.unmodified()
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def debian_nixpkgs(tmp_path_factory: pytest.TempPathFactory) -> toolchain.Nixpkgs:
    """The same checkout on the machine's compiler and tools: to build with."""
    try:
        return toolchain.on_debian(tmp_path_factory.mktemp("nixpkgs") / "debian")
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))
