"""A Nix new enough for nixpkgs (2.18) on a Debian that ships an older one.

The packages of Debian 13's nix-bin (or another's, which AIKIT_NIX_SUITE names) are fetched with the machine's own apt, from the machine's own mirror,
checked with Debian's keys, unpacked into a folder, and started through the C library that came with them.
Nothing is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

MINIMUM = (2, 18)  # nixpkgs' lib/minfeatures.nix
_SUITE = os.environ.get("AIKIT_NIX_SUITE", "trixie")  # Debian 13
_PROGRAMS = ("nix", "nix-build", "nix-hash", "nix-instantiate", "nix-store")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Started through a loader, Nix does not find itself for remote builds.
_SCRIPT = """\
#!/bin/sh
export NIX_CONFIG="${{NIX_CONFIG-}}
build-hook ="
exec {} "$@"
"""


class NoNewerNixError(Exception):
    """Why there is none: the message ends a test's skip reason."""


def programs(cache: Path) -> Path | None:
    """A folder of Nix programs to put in front of PATH; None where the machine's own Nix is new enough.

    `cache` is kept from run to run. Raises NoNewerNixError.
    """
    if _version(["nix"]) >= MINIMUM:
        return None
    cache = cache / _SUITE
    folder = cache / "bin"
    if not folder.is_dir():
        unpacked = cache / "root"
        shutil.rmtree(unpacked, ignore_errors=True)
        for package in download(cache, "nix-bin"):
            _run(["dpkg-deb", "-x", str(package), str(unpacked)])
        _wrap(unpacked, cache / "new")
        (cache / "new").rename(folder)
    return folder


def _version(command: list[str]) -> tuple[int, ...]:
    found = re.search(r"\) (\d+)\.(\d+)", _run([*command, "--version"]))
    return tuple(map(int, found.groups())) if found else (0,)


def _wrap(unpacked: Path, folder: Path) -> None:
    """Programs that start the unpacked Nix with its own dynamic loader and libraries."""
    libraries = unpacked / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    (loader,) = libraries.glob("ld-linux-*.so.*")
    command = [loader, "--library-path", libraries, "--argv0"]
    folder.mkdir()
    for name in _PROGRAMS:
        argv = shlex.join([*map(str, command), name, str(unpacked / "usr/bin/nix")])
        (folder / name).write_text(_SCRIPT.format(argv))
        (folder / name).chmod(0o755)


def download(cache: Path, *wanted: str) -> list[Path]:
    """The packages that an empty Debian 13 would install for those that are wanted."""
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise NoNewerNixError(f"`{program}` is missing: this needs a Debian")
    for folder in ("lists/partial", "archives/partial"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    (cache / "status").touch()
    (cache / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_mirror()} {_SUITE} main\n")
    settings = {
        "APT::Architecture": _run(["dpkg", "--print-architecture"]).strip(),
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
        "Dir::Cache": cache,
        "Dir::Etc::SourceList": cache / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": cache,
        "Dir::State::status": cache / "status",
    }
    options = [argument for name, value in settings.items() for argument in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "update"])
    # An earlier download may hold versions that the mirror has replaced.
    _run(["apt-get", *options, "clean"])
    _run(["apt-get", *options, "--yes", "--download-only", "install", *wanted])
    return sorted((cache / "archives").glob("*.deb"))


def _mirror() -> str:
    """The URL of the mirror that the machine's own apt uses for Debian itself."""
    indexes = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"])
    for line in indexes.splitlines():
        origin, label, uri = line.split(" ", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise NoNewerNixError("apt knows no Debian mirror (run `apt-get update`)")


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNewerNixError(f"`{shlex.join(argv[:1])}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
