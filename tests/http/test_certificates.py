"""Whom to trust over TLS: the system, the user's variables, and what the container tools keep for a registry."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aikit_nix.http import certificates
from aikit_nix.http.client import Client
from support import file_server
from support.web import TIMEOUTS, refused


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_users_certificates_are_trusted(
    certificate: tuple[Path, Path], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with file_server.serve({"/a": b"secret"}, certificate) as server:
        with Client(TIMEOUTS) as web:
            problem = refused(web, server.url + "/a")
        assert "certificate" in problem.message
        assert "SSL_CERT_FILE" in problem.message
        assert server.requests == []
        monkeypatch.setenv(variable, str(certificate[0]))
        with Client(TIMEOUTS) as web:
            assert web.get(server.url + "/a").body == b"secret"
        monkeypatch.setenv(variable, "/does/not/exist.pem")
        with Client(TIMEOUTS) as web:
            assert f"{variable} names no certificates" in refused(web, server.url + "/a").message


@pytest.mark.parametrize("tool", ["containers", "docker"])
def test_what_is_kept_for_a_registry(
    certificate: tuple[Path, Path], tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with file_server.serve({"/a": b"secret"}, certificate) as server, file_server.serve({}, certificate) as other:
        folder = tmp_path / ".config" / tool / "certs.d" / urlsplit(server.url).netloc
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate[0].read_bytes())
        (folder / "readme.txt").write_text("no certificate")
        with Client(TIMEOUTS) as web:
            assert web.get(server.url + "/a").body == b"secret"
            assert "certificate" in refused(web, other.url + "/a").message  # it is the one registry's
        bad = folder.parent / urlsplit(other.url).netloc
        bad.mkdir()
        (bad / "ca.crt").write_text("no certificate")
        with Client(TIMEOUTS) as web:
            assert f"{bad}/ca.crt cannot be used" in refused(web, other.url + "/a").message


def test_they_are_added(certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the system stay, and so do those of the variables beside a registry's."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other"]  # noqa: RUF005
        + ["-keyout", "key.pem", "-out", "other.pem"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    before = len(certificates.context("registry.example.com", 443).get_ca_certs())
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "other.pem"))
    folder = tmp_path / ".config/containers/certs.d/registry.example.com"
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(certificate[0].read_bytes())
    assert len(certificates.context("registry.example.com", 443).get_ca_certs()) == before + 2
    assert len(certificates.context("registry.example.com", 5000).get_ca_certs()) == before + 1


def test_a_client_certificate(certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config/containers/certs.d/registry.example.com:5000"
    folder.mkdir(parents=True)
    (folder / "client.cert").write_bytes(certificate[0].read_bytes())
    with pytest.raises(ValueError, match=r"client\.cert cannot be used"):
        certificates.context("registry.example.com", 5000)
    (folder / "client.key").write_bytes(certificate[1].read_bytes())
    with file_server.serve({"/a": b"for you"}, certificate, ask=certificate[0]) as server, Client(TIMEOUTS) as web:
        (folder.parent / urlsplit(server.url).netloc).symlink_to(folder)
        (folder / "ca.crt").write_bytes(certificate[0].read_bytes())
        assert web.get(server.url + "/a").body == b"for you"
