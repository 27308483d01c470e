"""A Debian archive on loopback, signed by a key of its own."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aikit_nix.debian import lock as debian
from support import file_server

DATE = datetime(2026, 10, 30, 8, 8, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archive:
    """A Debian archive on loopback, signed by a key of its own."""

    server: file_server.FileServer
    home: Path

    @property
    def keyring(self) -> Path:
        return self.home / "keyring.gpg"

    @property
    def mirror(self) -> str:
        return f"{self.server.url}/debian"

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(argv, input=data, capture_output=True, check=True).stdout

    def publish(
        self,
        packages: str,
        suite: str = "sid",
        *,
        valid: timedelta = timedelta(days=7),
        by_hash: bool = True,
        codename: str = "sid",
        date: datetime = DATE,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Make `packages` the index of a suite's main, for both architectures; `more` has other indices by folder."""
        texts = {"main/binary-amd64": packages, "main/binary-arm64": packages} | dict(more or {})
        listing = ""
        for folder, text in texts.items():
            index = lzma.compress(text.encode())
            sha256 = hashlib.sha256(index).hexdigest()
            listing += f" {sha256} {len(index)} {folder}/Packages.xz\n"
            place = f"by-hash/SHA256/{sha256}" if by_hash else "Packages.xz"
            self.server.files[f"/debian/dists/{suite}/{folder}/{place}"] = index
        release = (
            f"Origin: Test\nSuite: {suite}\nCodename: {codename}\nDate: {date:%a, %d %b %Y %H:%M:%S} UTC\n"
            f"Valid-Until: {datetime.now(UTC) + valid:%a, %d %b %Y %H:%M:%S} UTC\n"
            f"Acquire-By-Hash: {'yes' if by_hash else 'no'}\n"
            f"SHA256:\n{listing}"
        )
        self.server.files[f"/debian/dists/{suite}/InRelease"] = self.gpg("--clearsign", data=release.encode())


ENGINE = ("base-files", "ca-certificates", "libfuture99", "llama.cpp-tools")
TOOLS = ("python3-minimal", "libpython3-stdlib", "patchelf", "busybox-static")


def stanza(name: str, version: str = "1.0-1", depends: str = "", component: str = "main") -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\n"
        f"Filename: pool/{component}/{name[0]}/{name}_{version}_amd64.deb\nSize: {len(name)}\n"
        f"SHA256: {hashlib.sha256(name.encode()).hexdigest()}\n"
    )


INDEX = "\n".join(
    [
        *(stanza(name) for name in (*TOOLS, "base-files")),
        stanza("ca-certificates", depends="openssl (>= 3)"),
        stanza("llama.cpp-tools", "1:2.0+dfsg~1-1", "libfuture99 (>= 3), debconf, wget | curl"),
        stanza("libfuture99", "2.9-1"),
        stanza("libfuture99", "3.0-1"),
        "Package: not-in-the-pool\nVersion: 1\n",
    ]
)


def renew(archive: Archive) -> debian.DebianLock:
    """The lock that the archive gives, without a warning."""
    lock, warnings = debian.renew(archive.mirror, keyring=archive.keyring)
    assert warnings == ()
    return lock


@contextmanager
def serve(home: Path) -> Iterator[Archive]:
    """A running archive, whose key lies in the folder `home`. Needs `missing()` to be None."""
    home.chmod(0o700)
    with file_server.serve() as server:
        archive = Archive(server, home)
        archive.gpg("--passphrase", "", "--quick-generate-key", "test@example", "ed25519", "sign", "never")
        archive.keyring.write_bytes(archive.gpg("--export"))
        yield archive
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def missing() -> str | None:
    """Why there can be no such archive here."""
    lacking = [program for program in ("gpg", "gpgv") if not shutil.which(program)]
    return f"{lacking[0]} is not installed" if lacking else None
