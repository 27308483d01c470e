"""A repository in a registry: logins, and that nothing is believed which can be checked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client, HttpError, Trouble
from aikit_nix.image import layout
from aikit_nix.registry import credentials
from aikit_nix.registry.client import Repository
from aikit_nix.registry.reference import digest_of
from support import file_server, layouts
from support.fake_registry import FakeRegistry
from support.file_server import FileServer
from support.pushes import MIB, PATH, TIMEOUTS, refused, send

pytestmark = pytest.mark.usefixtures("own_folders")


def test_tokens_that_expire_are_asked_for_anew(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(2 * MIB)}, blobs=True)
    fake.token_life = 3
    done = send(full, f"{fake.address}/a/b:1", chunk=256 << 10, jobs=1, mount_from=["c/d"])
    assert fake.manifests["a/b", "1"] == layout.read_layout(full).manifest
    assert done.uploaded == 3
    assert len(fake.scopes) > 4
    assert all(scopes == ["repository:a/b:pull,push", "repository:c/d:pull"] for scopes in fake.scopes)


def test_a_token_that_is_never_taken_is_the_end(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.token_life = 0
    assert "is not open to you" in refused(full, f"{fake.address}/a/b:1")
    assert len(fake.requests) < 20


def test_a_registry_that_lies_about_a_digest(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.lie = "sha256:" + "0" * 64
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/a:1")
    assert not fake.manifests
    fake.lie = None
    send(full, f"{fake.address}/a:1")
    fake.lie = "sha256:" + "0" * 64
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/a:1")  # of what is there
    assert f"says {fake.lie}" in refused(full, f"{fake.address}/b:1")  # of what it mounts


# --- A repository alone


def repository(client: Client, registry: str, **options: Any) -> Repository:
    return Repository(client, registry, "a/b", **options)


def test_a_registry_on_this_machine_that_speaks_tls(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In TLS of whatever certificate, as docker; with `--secure` only of one that is trusted."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with file_server.serve({"/v2/a/b/x": b"{}"}, certificate) as server:
        address = server.url.removeprefix("https://")
        with Client(TIMEOUTS) as client:
            assert repository(client, address).get("x").body == b"{}"
        with Client(TIMEOUTS) as client, pytest.raises(AikitError, match="certificate"):
            repository(client, address, insecure=False).get("x")
        with Client(TIMEOUTS) as client, pytest.raises(AikitError):
            repository(client, address, insecure=True).get("x")
        folder = tmp_path / ".config/containers/certs.d" / address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate[0].read_bytes())
        with Client(TIMEOUTS) as client:
            assert repository(client, address, insecure=False).get("x").body == b"{}"


def challenged(repository: Repository, challenge: str) -> bool:
    """Whether there is a login after a refusal that asks for one in these words."""
    return repository.authorize(HttpError(Trouble.STATUS, "no", status=401, headers={"WWW-Authenticate": challenge}))


@pytest.mark.parametrize(
    ("registry", "options", "url"),
    [
        ("ghcr.io", {}, "https://ghcr.io/v2/a/b/x"),
        ("ghcr.io", {"insecure": True}, "http://ghcr.io/v2/a/b/x"),
        ("docker.io", {}, "https://registry-1.docker.io/v2/a/b/x"),
        ("localhost:1", {}, "http://localhost:1/v2/a/b/x"),
        ("127.0.0.1:1", {}, "http://127.0.0.1:1/v2/a/b/x"),
        ("[::1]:1", {}, "http://[::1]:1/v2/a/b/x"),
        ("[::1]:1", {"insecure": False}, "https://[::1]:1/v2/a/b/x"),
        ("localhost.example.com", {}, "https://localhost.example.com/v2/a/b/x"),
        ("127.0.0.1.example.com", {}, "https://127.0.0.1.example.com/v2/a/b/x"),
    ],
)
def test_only_this_machine_is_asked_in_plain_text(registry: str, options: dict[str, Any], url: str) -> None:
    with Client() as client:
        assert repository(client, registry, **options).url("x") == url


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("/v2/x", "https://registry.example.com/v2/x"),
        ("http://registry.example.com/v2/x", "https://registry.example.com/v2/x"),
        ("https://registry.example.com:443/v2/x", "https://registry.example.com/v2/x"),
        ("https://Registry.Example.com/v2/x", "https://registry.example.com/v2/x"),
        ("https://registry.example.com:444/v2/x", "https://registry.example.com:444/v2/x"),
        ("https://registry.example.com.evil/v2/x", "https://registry.example.com.evil/v2/x"),
    ],
)
def test_a_registry_is_itself_however_it_writes_its_name(said: str, where: str) -> None:
    """The login goes to no other, so what follows would be refused."""
    with Client() as client:
        there = repository(client, "registry.example.com")
        assert there.address(there.url("x"), said, "uploads") == where


@pytest.mark.parametrize(
    ("realm", "said"),
    [
        ("http://auth.example.com/token", "sends its login to http://auth.example.com/token, which is not encrypted"),
        ("file:///etc/passwd", "which is not encrypted"),
        ("http://[", "which is no address"),
        ("https://x:port/", "x:port"),
    ],
)
def test_a_login_is_sent_to_no_address_that_is_unsafe_or_none(realm: str, said: str) -> None:
    with Client() as client, pytest.raises(AikitError, match=said):
        challenged(repository(client, "registry.example.com"), f'Bearer realm="{realm}"')


def test_a_login_leaves_a_registry_without_tls_for_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is its own host's or this machine's, or goes over TLS."""
    login = credentials.Login("me", "hunter2")
    monkeypatch.setattr(credentials, "find", lambda *_: login)
    with Client() as client:
        there = repository(client, "registry.example.com", insecure=True)
        with pytest.raises(
            AikitError, match=r"http://auth\.example\.com/token, which is not encrypted and another host"
        ):
            challenged(there, 'Bearer realm="http://auth.example.com/token"')


@pytest.mark.parametrize(
    "challenge",
    # the last would take hours, were it looked for a parameter from each letter on
    ["", "Negotiate", "Bearer", 'Bearer service="x"', 'Basic realm="x"', '"' * 1000, f"Bearer {'a' * 3_000_000}"],
    ids=range(7),
)
def test_a_challenge_that_cannot_be_met_is_the_end(challenge: str) -> None:
    """Nobody logged in here, so Basic cannot be met either."""
    with Client() as client:
        assert not challenged(repository(client, "registry.example.com"), challenge)


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"token": 1}', b'{"token": ""}', b"{"])
def test_a_token_that_is_none_is_said(files: FileServer, answer: bytes) -> None:
    files.files["/token"] = answer
    with Client() as client, pytest.raises(AikitError):
        challenged(repository(client, "registry.example.com", insecure=True), f'Bearer realm="{files.url}/token"')


def test_a_token_is_never_shown(files: FileServer) -> None:
    files.files["/token"] = b'{"access_token": "a-secret-token"}'
    with Client() as client:
        there = repository(client, "registry.example.com", insecure=True)
        assert challenged(there, f'Bearer realm="{files.url}/token",service="s"')
        assert there.headers() == {"Authorization": "Bearer a-secret-token"}
        echo = HttpError(
            Trouble.STATUS, "no", status=403, body=b'{"errors": [{"message": "not a-secret-token\\u001b[2J"}]}'
        )
        said = str(there.refused(echo, "manifests/1"))
    assert said.endswith("(not ***\\x1b[2J)")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"", "is not open to you: `docker login ghcr.io`"),
        (404, b"", "has no 1: check the name and the tag"),
        (429, b"", "takes no more requests for now"),
        (503, b"<html>", "answered 503: try again later"),
        (400, b'{"errors": [{"code": "NO"}]}', r"does not take this \(status 400\) \(NO\)"),
        (400, b'{"errors": {"message": "x"}}', r"does not take this \(status 400\)$"),
        (400, b'{"errors": [1]}', r"does not take this \(status 400\)$"),
        (400, b"[" * 10_000, r"does not take this \(status 400\)$"),
    ],
    ids=range(8),
)
def test_what_a_refusal_means_is_said(status: int, body: bytes, said: str) -> None:
    with Client() as client:
        problem = HttpError(Trouble.STATUS, "no", status=status, body=body)
        assert re.search(f"ghcr.io/a/b {said}", str(repository(client, "ghcr.io").refused(problem, "manifests/1")))


def test_what_is_read_has_the_digest_that_it_should_have(fake: FakeRegistry) -> None:
    digest, other = digest_of(b"{}"), digest_of(b"other")
    fake.manifests = {("a/b", "1"): b"{}", ("a/b", digest): b"{}", ("a/b", other): b"{}", ("a/b", "2"): b"[]"}
    fake.blobs = {("a/b", digest): b"{}", ("a/b", other): b"{}"}
    with Client() as client:
        there = repository(client, fake.address)
        assert there.manifest("1") == there.manifest(digest)
        assert there.blob(digest) == b"{}"
        assert there.has(digest, 2)
        assert not there.has(digest_of(b"nobody has it"), 2)
        for wrong in (
            lambda: there.manifest(other),
            lambda: there.manifest("2"),
            lambda: there.blob(other),
            lambda: there.has(digest, 3),  # cut short
        ):
            with pytest.raises(AikitError, match=f"{fake.address}/a/b"):
                wrong()
        fake.lie = other
        with pytest.raises(AikitError, match="has the digest"):
            there.manifest("1")


def test_no_more_is_read_than_a_manifest_may_have(fake: FakeRegistry) -> None:
    fake.manifests["a/b", "1"] = b'"' + b"x" * (5 << 20) + b'"'
    with Client() as client, pytest.raises(AikitError, match="more than"):
        repository(client, fake.address).manifest("1")
