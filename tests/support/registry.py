"""Debian's docker-registry on loopback: a real registry to push to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing(*, login: bool = False) -> str | None:
    """Why there is no registry here, or none that asks for a login; or None."""
    if not shutil.which("docker-registry"):
        return "`docker-registry` is missing (Debian package docker-registry)"
    if login and not shutil.which("htpasswd"):
        return "`htpasswd` is missing (Debian package apache2-utils)"
    return None


class Registry:
    """A registry that keeps what it gets in a folder; it speaks plain HTTP at `address`, which it keeps over restarts."""

    def __init__(self, folder: Path, login: tuple[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        auth = ""
        if login:
            argv = ["htpasswd", "-Bbn", *login]
            (folder / "htpasswd").write_bytes(subprocess.run(argv, capture_output=True, check=True).stdout)
            auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
        (folder / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '{self.address}'}}\n{auth}"
        )

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            argv = ["docker-registry", "serve", str(self._folder / "config.yml")]
            # REGISTRY_AUTH_FILE is podman's file of logins, and to this program a part of its configuration
            env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=env)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{self.address}/v2/").close()
                return
            except urllib.error.HTTPError as asks:  # for a login
                asks.close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the registry does not answer: {(self._folder / 'log').read_text()}")

    def kill(self) -> None:
        """Without a word to its clients."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def tags(self, repository: str) -> list[str]:
        """The tags that are published, from what is on its disk."""
        folder = self._folder / "data/docker/registry/v2/repositories" / repository / "_manifests/tags"
        return sorted(tag.name for tag in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def serve(folder: Path, login: tuple[str, str] | None = None) -> Iterator[Registry]:
    """A running registry; `login` is the user and the password that it asks for."""
    registry = Registry(folder, login)
    try:
        registry.start()
        yield registry
    finally:
        registry.kill()
