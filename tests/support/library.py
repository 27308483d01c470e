"""The Nix library on Debian's packages, asked with plans of a test's own: no generator, no flake."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from aikit_nix.models import layer
from nixpkgs import plans

SYSTEMS = {"x86_64-linux": {"default": "avx2", "runtimes": ["avx", "avx2", "avx512"]}}


class Library:
    """A copy of the Nix library, with a lock of Debian packages that can be had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def argv(self, program: str | Path, output: str, **changes: Any) -> list[str]:
        plan = plans.plan(**({"packages": "debian", "systems": SYSTEMS} | changes))
        name = hashlib.sha256(plan.encode()).hexdigest()
        (self.folder / f"{name}.json").write_text(plan)
        expression = (
            f"import {self.folder} {{ plan = builtins.fromJSON (builtins.readFile {self.folder}/{name}.json); }}"
        )
        argv = [str(program), "--expr", expression, "-A", f"packages.x86_64-linux.{output}"]
        return [*argv, "--no-out-link"] if Path(program).name == "nix-build" else argv

    def try_build(self, output: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        argv = self.argv("nix-build", output, **changes)
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def build(self, output: str, **changes: Any) -> Path:
        done = self.try_build(output, **changes)
        assert done.returncode == 0, done.stderr[-4000:]
        return Path(done.stdout.strip())


def model(folder: Path, content: bytes, path: str = "/models/tiny.gguf", *, add: bool = True) -> dict[str, Any]:
    """A local model's part of a plan, its layer known; `add` puts it into the store."""
    name = "tiny.gguf"
    file = folder / name
    file.write_bytes(content)
    if add:
        subprocess.run(["nix-store", "--add-fixed", "sha256", file], check=True, capture_output=True)
    return {
        "path": path,
        "name": name,
        "url": None,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "layer": layer.describe(path, file),
        "fetch": "Put it there.",
    }


def requisites(path: Path) -> str:
    argv = ["nix-store", "--query", "--requisites", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def digest(layout: Path) -> str:
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    return str(entry["digest"])


def forget(path: Path) -> None:
    """Delete it from the store, with all that was made with it."""
    argv = ["nix-store", "--query", "--referrers-closure", str(path)]
    using = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["nix-store", "--delete", "--ignore-liveness", *using], check=True, capture_output=True)
