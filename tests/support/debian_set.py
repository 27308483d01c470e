"""A copy of the Debian package set, to build its parts with Nix and to change its files."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class DebianSet:
    """A copy of the package set."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "lock.json"

    def try_build(
        self, attribute: str, *options: str, runtime: str = "avx2", system: str = "x86_64-linux"
    ) -> subprocess.CompletedProcess[str]:
        """nix-build of an attribute; the caller's texts are only ever Nix code here, in the test."""
        set_ = f'import {self.folder} {{ system = "{system}"; runtime = "{runtime}"; }}'
        argv = ["nix-build", "--no-out-link", "-E", f"let set = {set_}; inherit (set) pkgs; in {attribute}"]
        return subprocess.run([*argv, *options], capture_output=True, text=True, check=False)

    def build(self, attribute: str, *options: str, runtime: str = "avx2", system: str = "x86_64-linux") -> Path:
        done = self.try_build(attribute, *options, runtime=runtime, system=system)
        assert done.returncode == 0, done.stderr[-4000:]
        return Path(done.stdout.split()[-1])

    def value(self, expression: str) -> Any:
        """What an expression of `set` is."""
        set_ = f'import {self.folder} {{ system = "x86_64-linux"; runtime = "avx2"; }}'
        argv = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", f"let set = {set_}; in {expression}"]
        return json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)

    def run(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """What a runCommand says on its error output."""
        settings = "".join(f"{name} = {value}; " for name, value in env.items())
        return self.try_build(f"pkgs.runCommand \"test\" {{ {settings}}} ''{script}''")
