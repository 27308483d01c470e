"""Every check that needs no test: ruff, mypy, and for Nix files the parser and nixfmt's format."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import nix_env

# A reimplementation of nixfmt, which is not in Debian: https://crates.io/crates/nixfmt_rs
NIXFMT = ("nixfmt_rs", "0.5.3")


def main() -> int:
    """Run all checks, also after one failed; the number of those that failed."""
    os.environ.update(nix_env.environment())
    listed = subprocess.run(["git", "ls-files", "*.nix"], capture_output=True, text=True, check=True).stdout
    nix_files = [name for name in listed.splitlines() if Path(name).exists()]
    checks = [
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "mypy"],
        ["nix-instantiate", "--parse", *nix_files],
    ]
    if nixfmt := find_nixfmt():
        checks.append([nixfmt, "--check", *nix_files])
    else:
        print("nixfmt: left out, there is neither nixfmt nor a Rust toolchain to build it with")
    return sum(not passes(check) for check in checks)


def passes(argv: list[str]) -> bool:
    """Whether a check passes; what it printed is shown where it does not."""
    name = " ".join(argv[2 if argv[1] == "-m" else 0 :][:3])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name}", flush=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode == 0


def find_nixfmt() -> str | None:
    """nixfmt: the one on PATH, or one that cargo built, kept between runs."""
    if found := shutil.which("nixfmt"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "aikit-nix" / "-".join(NIXFMT)
    program = folder / "bin/nixfmt"
    if not program.exists() and shutil.which("cargo"):
        name, version = NIXFMT
        print(f"Building {name} with cargo (checks the format of Nix files)", flush=True)
        cargo = ["cargo", "install", "--quiet", "--locked", "--root", str(folder), name, "--version", version]
        subprocess.run(cargo, check=False)
    return str(program) if program.exists() else None


if __name__ == "__main__":
    sys.exit(main())
