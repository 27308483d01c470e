"""Logins for registries, kept as docker and podman keep them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

LOGIN = ("someone", "a-Password-0f-the-tests")
HOW = ("docker", "docker-default", "auth-json", "registry-auth-file", "helper", "store", "repository")


def log_in(how: str, registry_name: str, folder: Path, password: str = LOGIN[1]) -> dict[str, str]:
    """Write a login as docker or podman would; gives the environment in which they find it."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CONFIG_HOME": str(home / "config")}
    entry = {"auth": base64.b64encode(f"{LOGIN[0]}:{password}".encode()).decode()}
    content: dict[str, object] = {"auths": {"other.example": {"auth": "eDp5"}, registry_name: entry}}
    where = home / ".docker/config.json"
    match how:
        case "docker":
            where = home / "elsewhere/config.json"
            env["DOCKER_CONFIG"] = str(where.parent)
        case "auth-json":
            where = home / "run/containers/auth.json"
        case "registry-auth-file":
            where = home / "named.json"
            env["REGISTRY_AUTH_FILE"] = str(where)
        case "helper" | "store":
            program = home / "bin/docker-credential-test"
            program.parent.mkdir(exist_ok=True)
            program.write_text(
                "#!/bin/sh\nread -r server\n"
                f'if [ "$1 $server" = "get {registry_name}" ]; then echo \'{{"Username": "{LOGIN[0]}", "Secret": "{password}"}}\'; exit 0; fi\n'
                "echo 'credentials not found in native keychain'; exit 1\n"
            )
            program.chmod(0o755)
            env["PATH"] = f"{program.parent}:{os.environ['PATH']}"
            content = {"credsStore": "test"} if how == "store" else {"credHelpers": {registry_name: "test"}}
        case "repository":
            content = {"auths": {registry_name: {"auth": "d3Jvbmc6d3Jvbmc="}, f"{registry_name}/team": entry}}
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(content))
    return env
