"""What lies beside an aikitfile, a model, a key, a repository, stays there: Nix sees the flake and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aikit_nix.models import seen
from support import fake_registry, flakes
from support.command import aikit_nix

STORE = Path("/nix/store")
# What a shell, a URL, or Nix's way of reading URLs takes for more than a name
NAME = "my models #?%é"


@dataclass(frozen=True)
class Beside:
    """A folder as people have it, and what of it must not be copied, by its SHA-256."""

    folder: Path
    private: frozenset[str]
    model: str

    def run(self, *words: str | Path) -> str:
        done = aikit_nix(*words, cwd=self.folder)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def edit(self, context: int) -> None:
        text = f"{flakes.AIKITFILE}config: |\n  - name: tiny\n    context_size: {context}\n"
        (self.folder / "aikitfile.yaml").write_text(f"{text}    parameters: {{model: tiny.gguf}}\n")

    def shell(self, line: str) -> str:
        done = subprocess.run(["bash", "-ec", line], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout


@pytest.fixture(params=["outside of git", "in git"])
def beside(
    request: pytest.FixtureRequest,
    nix: None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Beside]:
    folder = tmp_path / NAME
    folder.mkdir()
    flakes.environment(folder.parent, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Other bytes than any other test's
    model = bytearray(tiny_model.read_bytes())
    model[-8:] = os.urandom(8)
    contents = {"tiny.gguf": bytes(model), "cosign.key": os.urandom(600), "big": os.urandom(1 << 20)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    beside = Beside(
        folder,
        frozenset(hashlib.sha256(contents[name]).hexdigest() for name in ("cosign.key", "big")),
        hashlib.sha256(model).hexdigest(),
    )
    beside.edit(512)
    if request.param != "outside of git":
        # Not even what git tracks, as it does models by LFS
        beside.shell("git init -q . && git add tiny.gguf cosign.key aikitfile.yaml")
        (folder / ".git/hooks/private").write_bytes(contents["cosign.key"])
    yield beside
    for path in STORE.iterdir():
        if path.name.endswith("-tiny.gguf") and path.is_file() and digest(path) == beside.model:
            subprocess.run(["nix-store", "--delete", "--ignore-liveness", path], check=False, capture_output=True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copies(beside: Beside, before: set[Path]) -> list[str]:
    """New files of the store that should not be there: what is private, or a second copy of the model itself."""
    found = []
    for top in sorted(set(STORE.iterdir()) - before):
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_symlink() or not path.is_file() or path.suffix == ".lock":
                continue
            if digest(path) in beside.private or (digest(path) == beside.model and path != top):
                found.append(str(path))
    return found


def test_nothing_that_lies_beside_the_flake_gets_into_the_store(beside: Beside) -> None:
    before = set(STORE.iterdir())
    beside.run("lock")
    said = beside.run("gen", "--packages", "debian")
    next_line = said.splitlines()[-1].removeprefix("next: ")
    program = Path(sys.executable).parent
    with fake_registry.serve() as registry:
        for number, context in enumerate((512, 1024, 2048)):
            beside.edit(context)
            beside.run("gen")
            if number == 0:
                beside.shell(f'PATH="{program}:$PATH"; {next_line}')
                assert (beside.folder / "result/oci-layout").is_file()  # an OCI image, as it is
            beside.shell(re.sub(r".*&& ", "", next_line))
            beside.run("push", f"{registry.address}/a/tiny:{number}")
            for command in (["inspect"], ["reproduce", "-o", "r.json"], ["verify", "result"], ["fetch"]):
                beside.run(*command)
            beside.run("build", "--package", "manifest", "--out-link", "manifest")
        beside.run("bundle", beside.folder.parent / "bundle")
    assert copies(beside, before) == []


STRACE = shutil.which("strace")


@pytest.mark.skipif(not STRACE, reason="strace is not installed")
def test_a_changed_text_costs_no_look_at_the_model(beside: Beside, tmp_path: Path) -> None:
    # What was written a moment ago is not remembered: it may change again unseen
    while time.time_ns() - (beside.folder / "tiny.gguf").stat().st_ctime_ns < seen._RACY_NS:
        time.sleep(0.1)
    beside.run("lock")
    beside.run("gen", "--packages", "debian")
    beside.run("build")
    beside.edit(1024)
    argv = [STRACE, "-f", "-qq", "-e", "trace=openat,open", "-o", tmp_path / "opened", sys.executable, "-m"]
    for command in (["gen"], ["build"]):
        subprocess.run([*argv, "aikit_nix.cli", *command], cwd=beside.folder, check=True, capture_output=True)  # type: ignore[list-item]
        opened = (tmp_path / "opened").read_text()
        assert "aikitfile.yaml" in opened
        assert not re.findall(r'.*tiny\.gguf(?:-layer)?".*O_RD.*', opened), command
