"""Debian 13's Python on a Debian that ships an older one: unpacked into a folder, with its own C library."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from nixpkgs import newer_nix

NoPythonError = newer_nix.NoNewerNixError

_SCRIPT = """\
#!/bin/sh
exec {} --argv0 "$0" {} "$@"
"""


def trixie(cache: Path) -> Path:
    """The interpreter, which can make a virtual environment. `cache` is kept from run to run. Raises NoPythonError."""
    python = cache / "root/usr/bin/python3.13"
    if not python.with_name("python3.13.elf").exists():
        shutil.rmtree(cache / "root", ignore_errors=True)
        for package in newer_nix.download(cache, "python3.13-venv"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(cache / "root")], check=True)
        libraries = cache / "root/usr/lib" / f"{os.uname().machine}-linux-gnu"
        (loader,) = libraries.glob("ld-linux-*.so.*")
        for data in (cache / "root/usr/lib/python3.13").glob("_sysconfigdata_*.py"):  # says where pip is
            data.write_text(data.read_text().replace("'/usr/share/", f"'{cache}/root/usr/share/"))
        elf = python.rename(python.with_name("new.elf"))
        program = shlex.join([str(loader), "--library-path", str(libraries)])
        python.write_text(_SCRIPT.format(program, shlex.quote(str(elf.with_name("python3.13.elf")))))
        python.chmod(0o755)
        elf.rename(elf.with_name("python3.13.elf"))
    return python
