"""A real Kubernetes API server: compiled from its Go module, on Debian's etcd. No node and no controller is behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "1.36.3"
FOLDER = Path(__file__).parents[2] / "build" / f"kubernetes-{VERSION}"
_TOKEN = "the-test's"
_SECONDS = 120


class UnavailableError(Exception):
    """Why there can be no API server here: a test's reason to skip."""


@dataclass(frozen=True)
class Answer:
    """What the API server said: its HTTP status, the warnings that clients print, and the object or what is wrong with it."""

    status: int
    warnings: tuple[str, ...]
    body: Mapping[str, Any]

    @property
    def message(self) -> str:
        """Why it refuses; empty where it does not."""
        return "" if self.status in (200, 201) else str(self.body.get("message", self.body))


@dataclass(frozen=True)
class Server:
    """A running API server and the names that its kinds have in paths."""

    url: str
    context: ssl.SSLContext

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str = "GET", kind: str = "json") -> Answer:
        """One request, of a content type `application/KIND`."""
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": f"application/{kind}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.context) as response:
                said, status, head = response.read(), response.status, response.headers
        except urllib.error.HTTPError as refused:
            with refused:
                said, status, head = refused.read(), refused.code, refused.headers
        return Answer(status, tuple(head.get_all("Warning") or ()), json.loads(said))

    def apply(self, manifest: Mapping[str, Any], namespace: str, *, dry: bool = False, part: str = "") -> Answer:
        """As `kubectl apply --server-side --validate=strict` does it, in a namespace; with `dry`, `--dry-run=server`.

        `part` is a subresource (`/status`), which only a controller would write.
        """
        path = f"{self._folder(manifest, namespace)}/{manifest['metadata']['name']}{part}"
        query = "?fieldManager=test&fieldValidation=Strict&force=true" + ("&dryRun=All" if dry else "")
        # JSON is YAML
        return self.ask(path + query, manifest, "PATCH", "apply-patch+yaml")

    def _folder(self, manifest: Mapping[str, Any], namespace: str) -> str:
        """The path of all objects of a kind."""
        version = manifest["apiVersion"]
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        (resource,) = (
            each
            for each in self.ask(group).body["resources"]
            if each["kind"] == manifest["kind"] and "/" not in each["name"]
        )
        return (
            f"{group}/namespaces/{namespace}/{resource['name']}"
            if resource["namespaced"]
            else f"{group}/{resource['name']}"
        )


def programs() -> Path:
    """The folder with kube-apiserver and etcd, made where AIKIT_KUBERNETES asks for it. Raises UnavailableError."""
    if (FOLDER / "etcd").exists():
        return FOLDER
    if not os.environ.get("AIKIT_KUBERNETES"):
        raise UnavailableError("compiles kube-apiserver for minutes: set AIKIT_KUBERNETES=1")
    if missing := [name for name in ("go", "apt-get", "dpkg-deb", "openssl") if not shutil.which(name)]:
        raise UnavailableError(f"{', '.join(missing)}: not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(module(f"k8s.io/kubernetes@v{VERSION}"), folder / "source")
        _run("chmod", "-R", "u+w", folder / "source")
        for vendored in ("go.work", "go.work.sum"):
            (folder / "source" / vendored).unlink()
        shutil.rmtree(folder / "source/vendor")
        # The module lacks what it keeps in `staging`, which is published as modules of their own.
        text = (folder / "source/go.mod").read_text()
        staged = re.sub(r"=> \./staging/src/(k8s\.io/\S+)", rf"=> \1 v0{VERSION.removeprefix('1')}", text)
        (folder / "source/go.mod").write_text(staged)
        flags = f"-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION}"
        argv = ("nice", "go", "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", FOLDER, "./cmd/kube-apiserver")
        _run(*argv, cwd=folder / "source")
        # Installed, it would start a service.
        (folder / "deb").mkdir(mode=0o755)
        _run("apt-get", "-q", "download", "etcd-server", cwd=folder / "deb")
        (package,) = (folder / "deb").iterdir()
        _run("dpkg-deb", "--extract", package, folder / "etcd")
        shutil.copy(folder / "etcd/usr/bin/etcd", FOLDER)
    return FOLDER


def module(name: str) -> Path:
    """A Go module's folder, downloaded where it is not here. Raises UnavailableError."""
    return Path(json.loads(_run("go", "mod", "download", "-json", name, cwd=FOLDER))["Dir"])


def _run(*argv: object, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, argv)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"`{argv[0]}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


@contextmanager
def serve(programs: Path) -> Iterator[Server]:
    """An API server with an empty store, on loopback. Raises AssertionError where it does not start."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apiserver-")))
        store, peers, port = (_port() for _ in range(3))
        argv = ["--data-dir", folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{store}"]
        argv += [
            "--advertise-client-urls",
            f"http://127.0.0.1:{store}",
            "--listen-peer-urls",
            f"http://127.0.0.1:{peers}",
        ]
        argv += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}"]
        argv += ["--initial-cluster", f"default=http://127.0.0.1:{peers}", "--unsafe-no-fsync"]
        stack.enter_context(_started(folder / "etcd.log", programs / "etcd", *argv))
        _run("openssl", "genrsa", "-out", folder / "key.pem", "2048")
        (folder / "tokens").write_text(f"{_TOKEN},test,test,system:masters\n")
        argv = ["--etcd-servers", f"http://127.0.0.1:{store}", "--bind-address", "127.0.0.1", "--secure-port", port]
        argv += ["--cert-dir", folder, "--token-auth-file", folder / "tokens", "--authorization-mode", "RBAC"]
        argv += ["--service-cluster-ip-range", "10.0.0.0/24", "--service-account-issuer", "https://test"]
        argv += [
            "--service-account-key-file",
            folder / "key.pem",
            "--service-account-signing-key-file",
            folder / "key.pem",
        ]
        process = stack.enter_context(_started(folder / "log", programs / "kube-apiserver", *argv))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # of this minute, and on loopback
        server = Server(f"https://127.0.0.1:{port}", context)
        for _ in range(_SECONDS * 2):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                if server.ask("/api/v1/namespaces/default").status == 200:
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.5)
        else:
            raise AssertionError((folder / "log").read_text()[-2000:])
        yield server


@contextmanager
def _started(log: Path, *argv: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(list(map(str, argv)), stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
