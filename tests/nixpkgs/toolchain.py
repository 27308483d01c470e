"""Evaluates and builds with a nixpkgs checkout: as it is, or on the machine's Debian toolchain.

The checkout is named by the environment variable NIXPKGS; the tests that need one are skipped without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.nix import setup
from nixpkgs import newer_nix
from support import nix_env

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

# Programs that debian-toolchain.nix and what is built on it take from the machine, and their packages.
_PACKAGES = {
    "cmake": "cmake",
    "dash": "dash",
    "fakeroot": "fakeroot",
    "flake8": "flake8",
    "g++": "g++",
    "gcc": "gcc",
    "jq": "jq",
    "lndir": "xutils-dev",
    "make": "make",
    "ninja": "ninja-build",
    "patchelf": "patchelf",
    "pigz": "pigz",
    "pkg-config": "pkg-config",
    "python3": "python3",
    "xz": "xz-utils",
    "zstd": "zstd",
}
# What the sandbox sees of the machine.
_SANDBOX_PATHS = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    # The file, never its folder: Nix mounts its own CA bundle over this path for fixed-output derivations, and in
    # a folder that is the machine's own it first empties the machine's bundle.
    "/etc/ssl/certs/ca-certificates.crt",
)


class UnavailableError(Exception):
    """What is missing on this machine; the message is a test's skip reason."""


class NixError(Exception):
    """A Nix program failed; the message ends with what it said."""


@dataclass(frozen=True)
class Nixpkgs:
    """A nixpkgs to evaluate and build with. `folder` can be given wherever a nixpkgs checkout can.

    Expressions are Nix functions: their arguments are `nixpkgs` (the folder) and what is given as strings.
    """

    folder: Path
    env: Mapping[str, str]

    def instantiate(self, expression: str, *attributes: str, **strings: str) -> list[str]:
        """The .drv paths of an expression, or of attributes of it. Raises NixError."""
        return self.run(["nix-instantiate", *self._arguments(expression, attributes, strings)]).splitlines()

    def build(self, flake: Path, output: str, *options: str) -> Path:
        """One output of a generated flake, built with this nixpkgs. Raises NixError."""
        argv = ["nix", "build", f"path:{flake}#{output}", *options, "--no-link", "--print-out-paths"]
        # Impure: the toolchain's flake names a checkout outside of the store.
        argv += ["--override-input", "nixpkgs", f"path:{self.folder}", "--impure", "--no-write-lock-file"]
        return Path(self.run(argv).strip())

    def provide(self, expression: str, variable: str) -> None:
        """Put a package's source into the store: the folder that an environment variable names, or a download.

        The hash that nixpkgs knows decides whether it is the right one. Raises UnavailableError.
        """
        (drv,) = self.instantiate(expression)
        path = self.run(["nix-store", "--query", "--outputs", drv]).strip()
        if self._succeeds("nix-store", "--check-validity", path):
            return
        if folder := os.environ.get(variable):
            added = self.run(["nix", "store", "add-path", "--name", path[44:], folder]).strip()
            if added != path:
                raise UnavailableError(f"{variable}={folder} is not the source that nixpkgs pins")
        elif not self._succeeds("nix-store", "--realise", drv):
            raise UnavailableError(f"a source cannot be downloaded, and {variable} does not name a copy: {drv}")

    def run(self, argv: Sequence[str]) -> str:
        """The stdout of a Nix program. Raises NixError."""
        done = subprocess.run(argv, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NixError(f"`{argv[0]}` failed with status {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout

    def derivation(self, drv: str) -> Mapping[str, Any]:
        """What a derivation says; newer Nix wraps it."""
        shown = json.loads(self.run(["nix", "derivation", "show", drv]))
        (content,) = shown.get("derivations", shown).values()
        return dict(content)

    def _succeeds(self, *argv: str) -> bool:
        done = subprocess.run(argv, env={**os.environ, **self.env}, capture_output=True, check=False)
        return done.returncode == 0

    def _arguments(self, expression: str, attributes: Sequence[str], strings: Mapping[str, str]) -> list[str]:
        argv = ["--expr", expression, "--arg", "nixpkgs", str(self.folder)]
        for name, value in strings.items():
            argv += ["--argstr", name, value]
        for attribute in attributes:
            argv += ["-A", attribute]
        return argv


def unmodified() -> Nixpkgs:
    """The checkout as it is: to evaluate with. Raises UnavailableError."""
    if not (named := os.environ.get("NIXPKGS")):
        raise UnavailableError("NIXPKGS does not name a nixpkgs checkout")
    checkout = Path(named).resolve()
    if not (checkout / "pkgs/top-level").is_dir():
        raise UnavailableError(f"NIXPKGS={named} is no nixpkgs checkout")
    if problem := setup.problem():
        raise UnavailableError(problem)
    # CUDA is unfree: the flake must allow it without help from the user's environment.
    env = nix_env.environment() | {"NIXPKGS_ALLOW_UNFREE": "0"}
    try:
        if folder := newer_nix.programs(REPOSITORY / "build/newer-nix"):
            env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
    except newer_nix.NoNewerNixError as reason:
        raise UnavailableError(f"nixpkgs needs Nix 2.18: {reason}") from None
    return Nixpkgs(checkout, env)


def on_debian(folder: Path, overlays: Mapping[Path, Mapping[str, str]] | None = None) -> Nixpkgs:
    """The checkout on the machine's compiler and tools: to build with, without a binary cache.

    `folder` is made, and takes the checkout's place. `overlays` are files, with the arguments that make an overlay of
    each. Raises UnavailableError.
    """
    real = unmodified()
    if os.uname().machine != "x86_64":
        raise UnavailableError("the Debian toolchain under nixpkgs is for x86_64")
    if missing := sorted(package for program, package in _PACKAGES.items() if not shutil.which(program)):
        raise UnavailableError(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    if setup.daemon():
        raise UnavailableError("the Nix daemon decides what its sandbox sees of the machine")
    paths = [path for path in _SANDBOX_PATHS if Path(path).exists()]
    go = _go_root()
    if not go.is_relative_to("/usr"):
        paths.append(str(go))
    arguments = {
        "goRoot": str(go),
        "nixpkgs": str(real.folder),
        "overlays": [{"file": str(file), "arguments": given} for file, given in (overlays or {}).items()],
        "toolchain": str(HERE / "debian-toolchain.nix"),
    }

    folder.mkdir()
    (folder / "arguments.json").write_text(json.dumps(arguments))
    (folder / "default.nix").write_text(
        "args: let given = builtins.fromJSON (builtins.readFile ./arguments.json); "
        "overlays = map (overlay: import (/. + overlay.file) overlay.arguments) given.overlays ++ args.overlays or []; "
        "in import given.toolchain "
        "(args // { inherit (given) goRoot; inherit overlays; nixpkgs = /. + given.nixpkgs; })\n"
    )
    # So that it can also override a flake's input.
    (folder / "flake.nix").write_text("{ outputs = _: { }; }\n")
    # The machine itself builds; a cache would have nothing of this.
    settings = ["substitute = false", "builders =", f"sandbox-paths = {' '.join(paths)}"]
    return Nixpkgs(folder, {**real.env, "NIX_CONFIG": "\n".join([real.env["NIX_CONFIG"], *settings])})


def _go_root() -> Path:
    """Where the machine's Go lies; without one, Debian's place for it: only what uses Go will notice."""
    if not shutil.which("go"):
        return Path("/usr/lib/go")
    done = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).resolve()
