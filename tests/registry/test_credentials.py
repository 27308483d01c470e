"""The logins that docker and podman keep: which one is found, and that it is sent to its registry alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aikit_nix.base import redact
from aikit_nix.base.errors import AikitError
from aikit_nix.registry import credentials
from aikit_nix.registry.credentials import Login
from support import registry
from support.artifacts import OLLAMA, OLLAMA_CONFIG, Layer, Pusher
from support.file_server import Failure, FileServer
from support.locks import done, in_store, only_file, refused, write
from support.logins import HOW, LOGIN, log_in
from support.registry import Registry


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for LOGIN."""
    if problem := registry.missing(login=True):
        pytest.skip(problem)
    with registry.serve(tmp_path_factory.mktemp("registry"), LOGIN) as running:
        yield running


def at_home(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> None:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("how", HOW)
def test_a_login_is_found_where_its_tool_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    at_home(monkeypatch, log_in(how, "h.example:5000", tmp_path))
    assert credentials.find("h.example:5000", "team/m") == Login(*LOGIN)
    assert credentials.find("evil.example", "team/m") is None
    assert credentials.find("h.example", "team/m") is None
    for secret in (LOGIN[1], Login(*LOGIN).basic.removeprefix("Basic ")):
        assert secret not in redact.shown(f"said {secret} aloud")


def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: object) -> None:
    (tmp_path / "logins.json").write_text(content if isinstance(content, str) else json.dumps(content))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "logins.json"))


def packed(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_most_specific_login_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("h.example", "h.example/a", "h.example/a/b", "https://index.docker.io/v1/", "https://g.example/v2/")
    kept(monkeypatch, tmp_path, {"auths": {name: packed(name[-5:], "pass:word") for name in names}})
    found = {
        where: login.user if (login := credentials.find(*where)) else None
        for where in [
            ("h.example", "a/b"),
            ("h.example", "a/bc"),
            ("h.example", "b"),
            ("docker.io", "m"),
            ("g.example", "m"),
        ]
    }
    assert list(found.values()) == ["e/a/b", "ple/a", "ample", "o/v1/", "e/v2/"]
    assert (credentials.find("h.example", "b") or Login("", "")).password == "pass:word"


def test_a_token_stands_for_user_and_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch, tmp_path, {"auths": {"h.example": packed("u", "") | {"identitytoken": "a-t0ken-of-mine"}}})
    assert credentials.find("h.example", "m") == Login("u", "", "a-t0ken-of-mine")
    assert "a-t0ken" not in redact.shown("a-t0ken-of-mine")
    helper = tmp_path / "docker-credential-test"
    helper.write_text("""#!/bin/sh\necho '{"Username": "<token>", "Secret": "an0ther-t0ken"}'\n""")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    kept(monkeypatch, tmp_path, {"credHelpers": {"h.example": "test"}})
    assert credentials.find("h.example", "m") == Login("", "", "an0ther-t0ken")
    half = r'{"Username": "u", "Secret": "half a \ud83d"}'
    for answer in ("[]", "{", '{"Username": "u"}', "[" * 100_000, half):
        helper.write_text(f"#!/bin/sh\nprintf %s '{answer}'\n")
        with pytest.raises(AikitError, match="answered with something that is no login"):
            credentials.find("h.example", "m")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"auths": 7}',
        '{"auths": {"h.example": {"auth": "not base64!"}}}',
        '{"auths": {"h.example": {"auth": "/////w=="}}}',
        r'{"auths": {"h.example": {"identitytoken": "half a \ud83d"}}}',
        '{"credsStore": "../../bin/sh"}',
        '{"credHelpers": {"h.example": "a; touch x"}}',
        '{"credsStore": "not-there"}',
        " " * (1 << 21),
    ],
)
def test_a_file_of_logins_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    kept(monkeypatch, tmp_path, text)
    with pytest.raises(AikitError) as refused:
        credentials.find("h.example", "m")
    assert len(str(refused.value).splitlines()) == 1


# --- With a real registry


@pytest.mark.parametrize("how", ["docker", "store"])
@pytest.mark.usefixtures("nix", "hub")
def test_logins(tmp_path: Path, closed_registry: Registry, model: bytes, how: str) -> None:
    """Sent to the registry alone, and written nowhere."""
    there = Pusher(closed_registry.address, f"team/{how}", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    nobody = {"HOME": str(tmp_path / "empty"), "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": ""}
    said = refused(tmp_path, "lock", env=nobody)
    assert f"docker login {there.registry}" in said
    assert not (tmp_path / "aikit.lock").exists()

    env = log_in(how, there.registry, tmp_path)
    said = done(tmp_path, "--verbose", "lock", env=env)
    assert f"docker login {there.registry}" in refused(tmp_path, "fetch", env=nobody)
    said += done(tmp_path, "--verbose", "fetch", env=env)
    assert in_store(how, model)
    secrets = (LOGIN[1], base64.b64encode(":".join(LOGIN).encode()).decode())
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and "home" not in file.parts]
    for secret in secrets:
        assert secret not in said
        assert not any(secret.encode() in data for data in kept)


@pytest.mark.usefixtures("nix", "hub")
def test_a_wrong_password(tmp_path: Path, closed_registry: Registry, model: bytes) -> None:
    there = Pusher(closed_registry.address, "team/wrong", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    said = refused(tmp_path, "lock", env=log_in("docker", there.registry, tmp_path, "an-0ther-Password"))
    assert "docker login" in said
    assert "an-0ther-Password" not in said


@pytest.mark.usefixtures("nix", "hub")
def test_a_lock_cannot_send_a_login_elsewhere(
    tmp_path: Path, files: FileServer, closed_registry: Registry, model: bytes
) -> None:
    there = Pusher(closed_registry.address, "team/elsewhere", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    env = log_in("docker", there.registry, tmp_path)
    done(tmp_path, "lock", env=env)
    lock_file = tmp_path / "aikit.lock"
    lock_file.write_text(lock_file.read_text().replace(only_file(tmp_path)["url"], f"{files.url}/blob"))
    files.files["/blob"] = model
    files.failures["/blob"] = [Failure(401, {"WWW-Authenticate": 'Basic realm="mine"'})] * 3
    assert "its url is http" in refused(tmp_path, "fetch", env=env)
    assert not files.requests
