"""`lock` and `fetch` killed at many moments: resumable, no bad byte under a final name, never a broken lock.

AIKIT_KILLS is how many times each is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aikit_nix.base import process, typed_json
from aikit_nix.models import lock
from aikit_nix.models.entry import File
from aikit_nix.nix import store
from support import tiny_gguf
from support.file_server import FileServer
from support.hugging_face import HuggingFace
from support.locks import digest, done, write

KILLS = int(os.environ.get("AIKIT_KILLS", "5"))
OLD = '{"version": 1, "models": []}\n'
NAMES = ("a.gguf", "b.gguf", "c.gguf")

pytestmark = pytest.mark.usefixtures("nix")


@dataclass
class Project:
    """Models of a web server and of Hugging Face that nobody has seen yet, and what is known to be true of them."""

    folder: Path
    web: FileServer
    hub: HuggingFace
    models: dict[str, bytes] = field(default_factory=dict)

    def renew(self) -> None:
        """Other models, an empty lock."""
        head = tiny_gguf.make(self.folder / "head").read_bytes()
        self.models = {name: head + os.urandom((5 << 20) + index) for index, name in enumerate(NAMES)}
        self.web.files = {f"/{name}": self.models[name] for name in NAMES[:2]}
        self.hub.repository().commit({NAMES[2]: self.models[NAMES[2]]})
        sources = [f"{self.web.url}/{name}" for name in NAMES[:2]] + [f"huggingface://ns/repo/{NAMES[2]}"]
        write(self.folder, *((name, source) for name, source in zip(NAMES, sources, strict=True)))
        (self.folder / "aikit.lock").write_text(OLD)

    def check(self) -> None:
        """What must hold at every moment."""
        text = (self.folder / "aikit.lock").read_text()
        read = lock.parse(text.encode(), "aikit.lock")
        assert text == OLD or len(read.entries) == len(NAMES)
        for entry in read.entries.values():
            ((path, pin),) = entry.files
            assert pin.sha256 == digest(self.models[path.removeprefix("/models/")])
        for name, data in self.models.items():
            (is_there,) = store.present([(name, digest(data))])
            if is_there:
                held = store.store_path(name, digest(data))
                assert held.read_bytes() == data
                process.run(["nix-store", "--verify-path", held])
        downloads = self.folder / "cache/aikit-nix/downloads"
        for file in downloads.iterdir() if downloads.is_dir() else ():
            # Without its state a file is on its way into the store, and not believed afterwards
            if file.with_name(f"{file.name}.state").exists():
                assert file.read_bytes() in self.models.values()
            if file.suffix == ".pins":
                for value in json.loads(file.read_bytes())["files"]:
                    path, pin = typed_json.convert(value, File).pinned()
                    assert pin.sha256 == digest(self.models[path.removeprefix("/models/")])


def killed(folder: Path, command: str, after: float, *, group: bool) -> bool:
    """Run a command and kill it after some seconds, alone or with all that it started; whether it was still running."""
    argv = [sys.executable, "-m", "aikit_nix.cli", command]
    process = subprocess.Popen(
        argv, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, said.decode()
    return False


@pytest.mark.parametrize("command", ["lock", "fetch"])
def test_kill_9(tmp_path: Path, files: FileServer, hub: HuggingFace, command: str) -> None:
    project = Project(tmp_path, files, hub)

    def renew() -> None:
        project.renew()
        if command == "fetch":
            files.rate = None
            done(tmp_path, "lock")
            for name in NAMES[:2]:  # fetched by `lock` already
                path = store.store_path(name, digest(project.models[name]))
                subprocess.run(["nix-store", "--delete", path], check=True, capture_output=True)
        files.rate = 8 << 20

    renew()
    started = time.monotonic()
    assert not killed(tmp_path, command, 300, group=False)
    longest = time.monotonic() - started
    project.check()
    renew()
    count = 0
    for attempt in range(10 * KILLS):
        if killed(tmp_path, command, 0.1 + longest * (attempt % 10) / 10, group=attempt % 2 == 1):
            count += 1
            project.check()
        else:
            project.check()
            renew()
        if count == KILLS:
            break
    assert count == KILLS
    done(tmp_path, command)
    project.check()
    left = [file.name for file in (tmp_path / "cache/aikit-nix/downloads").iterdir() if file.stat().st_size]
    assert not left
    assert len(lock.parse((tmp_path / "aikit.lock").read_bytes(), "").entries) == len(NAMES)
    if command == "fetch":
        assert all(store.present((name, digest(data)) for name, data in project.models.items()))
