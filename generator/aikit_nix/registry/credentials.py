"""The logins for registries that docker and podman keep: their files and credential helpers, read and never written.

Files and their order: docker's config.json (docs.docker.com, "docker login") and containers-auth.json(5).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.base import files, process, redact
from aikit_nix.base.errors import AikitError, error

_MAX_BYTES = 1 << 20
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Login:
    """A user and password, or an identity token that stands for both. Raises ValueError for what cannot be sent."""

    user: str
    password: str
    identity_token: str | None = None

    def __post_init__(self) -> None:
        f"{self.user}{self.password}{self.identity_token}".encode()  # JSON may hold half a character

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find(registry: str, repository: str) -> Login | None:
    """The login for a repository, the most specific first; None where nobody logged in.

    Raises AikitError for a file that cannot be read or a helper that fails otherwise than by knowing nothing.
    """
    for file in _files():
        if not file.is_file():
            continue
        if login := _in_file(file, registry, repository):
            redact.hide(login.password)
            redact.hide(login.basic.removeprefix("Basic "))
            if login.identity_token:
                redact.hide(login.identity_token)
            return login
    return None


def _files() -> Iterator[Path]:
    """podman's and skopeo's before docker's, as skopeo looks; a variable that names a file names the only one."""
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    config = Path(os.environ.get("XDG_CONFIG_HOME") or files.home() / ".config")
    yield config / "containers/auth.json"
    yield Path(os.environ.get("DOCKER_CONFIG") or files.home() / ".docker") / "config.json"


def _in_file(file: Path, registry: str, repository: str) -> Login | None:
    try:
        content = json.loads(files.read_bounded(file, _MAX_BYTES))
        helpers, auths = content.get("credHelpers") or {}, content.get("auths") or {}
        store = content.get("credsStore")
        keys = list(_keys(registry, repository))
        for key in keys:
            if helper := helpers.get(key):
                return _ask(str(helper), key)
        for key in keys:
            entry = auths.get(key)
            if isinstance(entry, Mapping) and (entry.get("auth") or entry.get("identitytoken")):
                return _decoded(entry)
        if isinstance(store, str) and store:
            for key in keys:
                if login := _ask(store, key):
                    return login
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise error(f"{file} is no file of logins: `docker login` or `podman login` writes one", code="login") from None
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])
    yield registry
    if registry in _DOCKER_HUB:
        yield from (_HUB_KEY, *_DOCKER_HUB)
    yield from (f"https://{registry}", f"https://{registry}/", f"https://{registry}/v1/", f"https://{registry}/v2/")


def _decoded(entry: Mapping[str, Any]) -> Login:
    user, _, password = base64.b64decode(str(entry.get("auth") or "")).decode().partition(":")
    token = entry.get("identitytoken")
    return Login(user, password.rstrip("\0"), str(token) if token else None)


def _ask(helper: str, registry: str) -> Login | None:
    """docker-credential-helpers' protocol: the server's name on stdin, JSON on stdout."""
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise error(f"the credential helper {helper!r} has no name of a program", code="login")
    program = f"docker-credential-{helper}"
    try:
        said = process.run([program, "get"], stdin=registry.encode(), secret=True)
        answer = json.loads(said)
        user, secret = str(answer["Username"]), str(answer["Secret"])
        return Login("", "", secret) if user == "<token>" else Login(user, secret)
    except AikitError as failed:
        if failed.diagnostics[0].code == "program-missing":
            raise
        return None  # it knows nothing of this registry, and says so by failing
    except (ValueError, KeyError, TypeError, RecursionError):
        raise error(f"`{program}` answered with something that is no login", code="login") from None
