"""Debian's docker-registry on loopback: a real registry to push to."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing() -> str | None:
    """Why there is no registry here, or None."""
    return None if shutil.which("docker-registry") else "`docker-registry` is missing (Debian package docker-registry)"


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A registry that keeps what it gets in `folder`; yields its HOST:PORT. It speaks plain HTTP and asks for no login."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/v2/").close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(f"the registry does not answer: {(folder / 'log').read_text()}")
        yield address
    finally:
        process.terminate()
        process.wait()
