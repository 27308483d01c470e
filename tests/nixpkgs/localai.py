"""Compiles LocalAI with real nixpkgs on the machine's Debian toolchain.

The sources are downloaded, or taken from the folder that the environment variable AIKIT_SOURCES names: source trees
and files under any name, known by their hashes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nixpkgs import toolchain
from nixpkgs.toolchain import Nixpkgs, UnavailableError

# What ./localai.nix takes from the machine, and Debian's package of each: programs, and headers.
_PACKAGES = {
    "/usr/include/absl/base/config.h": "libabsl-dev",
    "/usr/include/google/protobuf/message.h": "libprotobuf-dev",
    "/usr/include/grpcpp/grpcpp.h": "libgrpc++-dev",
    "/usr/include/openssl/ssl.h": "libssl-dev",
    "grpc_cpp_plugin": "protobuf-compiler-grpc",
    "protoc": "protobuf-compiler",
}
# What LocalAI's go.mod and its interface's package.json ask for.
_VERSIONS = {"go version": (1, 26), "node --version": (20, 19)}
_SOURCES = re.compile(r"-(source|[^/]*\.whl)\.drv$")


def on_debian(folder: Path, overlays: Mapping[Path, Mapping[str, str]] | None = None) -> Nixpkgs:
    """`toolchain.on_debian` with what LocalAI needs besides. Raises UnavailableError."""
    there = (Path(name).exists() if name.startswith("/") else shutil.which(name) for name in _PACKAGES)
    if missing := [package for package, found in zip(_PACKAGES.values(), there, strict=True) if not found]:
        raise UnavailableError(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    for command, minimum in _VERSIONS.items():
        said = _run(command.split()) if shutil.which(command.split()[0]) else ""
        found = re.search(r"(\d+)\.(\d+)", said)
        if not found or (int(found[1]), int(found[2])) < minimum:
            raise UnavailableError(f"{command.split()[0]} {'.'.join(map(str, minimum))} or newer is missing")
    own = {toolchain.HERE / "localai.nix": {"prefetchNpmDeps": str(_prefetch_npm_deps())}}
    return toolchain.on_debian(folder, {**own, **(overlays or {})})


def provide_sources(nixpkgs: Nixpkgs, drv: str) -> None:
    """Put the sources that a derivation is built from into the store. Raises UnavailableError."""
    if folder := os.environ.get("AIKIT_SOURCES"):
        for entry in sorted(path.resolve() for path in Path(folder).iterdir()):
            if entry.is_dir():
                nixpkgs.run(["nix", "store", "add-path", "--name", "source", str(entry)])
            else:
                nixpkgs.run(["nix-store", "--add-fixed", "sha256", str(entry)])
    for path in nixpkgs.run(["nix-store", "--query", "--requisites", drv]).splitlines():
        if _SOURCES.search(path):
            try:
                nixpkgs.run(["nix-store", "--realise", path])
            except toolchain.NixError:
                raise UnavailableError(
                    f"a source cannot be downloaded, and AIKIT_SOURCES does not have it: {path}"
                ) from None


def _prefetch_npm_deps() -> Path:
    """nixpkgs' own Rust program, compiled once: the sandbox has no Rust."""
    program = toolchain.REPOSITORY / "build/prefetch-npm-deps"
    if not (program / "bin/prefetch-npm-deps").exists():
        if not shutil.which("cargo"):
            raise UnavailableError("`cargo` is missing: it compiles nixpkgs' prefetch-npm-deps")
        source = toolchain.unmodified().folder / "pkgs/build-support/node/prefetch-npm-deps"
        with tempfile.TemporaryDirectory() as scratch:
            argv = ["cargo", "install", "--locked", "--no-track", "--target-dir", scratch]
            _run([*argv, "--root", str(program), "--path", str(source)])
    return program


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"`{argv[0]}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
