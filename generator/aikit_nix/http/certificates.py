"""Whom to trust over TLS: the system's authorities, those that the user's variables name, those kept for a registry."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from aikit_nix.base.errors import RefusedError
from aikit_nix.base.redact import shown

_VARIABLES = ("SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where distributions keep them, for an OpenSSL that was built for another place. Source: Go's crypto/x509/root_linux.go.
_BUNDLES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"),
    *("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"),
)


def context(host: str, port: int, *, verified: bool = True) -> ssl.SSLContext:
    """For a server; where it is not `verified`, any certificate is taken. Raises RefusedError for certificates that cannot be read."""
    named = tuple((name, value) for name in _VARIABLES if (value := os.environ.get(name)))
    return _context(named, os.environ.get("SSL_CERT_DIR"), tuple(_folders(host, port)), verified)


def _folders(host: str, port: int) -> Iterator[Path]:
    """What docker, podman and skopeo know of a registry: certs.d/HOST:PORT. Sources: containers-certs.d(5), docs.docker.com."""
    there = f"[{host}]" if ":" in host else host
    config = Path(os.path.expanduser("~/.config"))  # noqa: PTH111 (a user without a home is none the worse)
    for folder in (config / "containers", config / "docker", Path("/etc/containers"), Path("/etc/docker")):
        for name in (f"{there}:{port}", *([there] if port == 443 else [])):
            if (found := folder / "certs.d" / name).is_dir():
                yield found


@lru_cache
def _context(
    named: tuple[tuple[str, str], ...], _cert_dir: str | None, folders: tuple[Path, ...], verified: bool
) -> ssl.SSLContext:
    made = ssl.create_default_context()  # heeds SSL_CERT_FILE and SSL_CERT_DIR, and says nothing of what it cannot read
    if not made.cert_store_stats()["x509_ca"] and not ssl.get_default_verify_paths().capath:
        for bundle in filter(os.path.isfile, _BUNDLES):
            made.load_verify_locations(bundle)
            break
    for variable, name in named:
        try:
            made.load_verify_locations(**{"capath" if Path(name).is_dir() else "cafile": name})
        except OSError as problem:  # SSLError is one
            raise RefusedError(f"{variable} names no certificates: {shown(name)}: {shown(str(problem))}") from None
    for folder in folders:
        for file in sorted(folder.iterdir()):
            try:
                if file.suffix == ".crt":
                    made.load_verify_locations(file)
                elif file.suffix == ".cert":
                    made.load_cert_chain(file, file.with_suffix(".key"))
            except OSError as problem:
                raise RefusedError(f"{file} cannot be used: {shown(str(problem))}") from None
    if not verified:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
