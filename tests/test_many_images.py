"""One fix for many images (docs/hermetic.md): new packages of Debian, and no model is read, moved or needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.debian import lock as debian
from aikit_nix.nix import store
from support import debian_lock, docs, file_server, fresh, registry, tiny_gguf
from support.command import aikit_nix, on_path

IMAGES = ("llama", "mistral")
PADDING = 8_000_000  # bytes of each model that do not compress


@dataclass(frozen=True)
class Folder:
    """A folder of aikitfiles, and the servers of their models, of Debian's packages, and of the images."""

    path: Path
    server: file_server.FileServer
    registry: registry.Registry
    environment: dict[str, str]

    def push_all(self, machine: Path) -> str:
        """The docs' loop, on a machine with an empty store; what was said."""
        _, loop = docs.blocks("hermetic.md", "Many images, one fix")
        env = {
            **self.environment,
            **on_path(self.path.parent / "bin"),
            "REGISTRY": f"{self.registry.address}/team",
            "AIKIT_DEBIAN_LOCK": "",
        }
        done = fresh.run(machine, "bash", "-euo", "pipefail", "-c", loop, cwd=self.path, network=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def layers(self, image: str) -> list[dict[str, Any]]:
        url = f"http://{self.registry.address}/v2/team/{image}/manifests/avx"
        request = urllib.request.Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        with urllib.request.urlopen(request) as answer:
            found: list[dict[str, Any]] = json.load(answer)["layers"]
        return found


@pytest.fixture
def folder(nix: None, tmp_path: Path) -> Iterator[Folder]:
    if problem := fresh.problem() or registry.missing():
        pytest.skip(problem)
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is missing: this makes a newer package")
    path = tmp_path / "images"
    (tmp_path / "registry").mkdir()
    with file_server.serve() as server, registry.serve(tmp_path / "registry") as images:
        for name in IMAGES:
            model = tiny_gguf.make(tmp_path / f"{name}.gguf", f"This is {name}.").read_bytes()
            server.files[f"/{name}.gguf"] = model + os.urandom(PADDING)
            (path / name).mkdir(parents=True)
            (path / name / "aikitfile.yaml").write_text(
                f"apiVersion: v1alpha1\nmodels:\n  - name: {name}\n    source: {server.url}/{name}.gguf\n"
            )
            done = aikit_nix("lock", f"{name}/aikitfile.yaml", cwd=path)
            assert done.returncode == 0, done.stderr
        shutil.copy(debian_lock.usable(tmp_path, print) or debian.LOCK, path / "debian-lock.json")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIKIT_DEBIAN_LOCK", str(path / "debian-lock.json"))
            environment = debian_lock.mirror_of_store(server)
        yield Folder(path, server, images, environment)


def newer(folder: Folder, scratch: Path, name: str = "ca-certificates") -> None:
    """A fix in one of Debian's packages: on the mirror, and in the lock."""
    lock = json.loads((folder.path / "debian-lock.json").read_text())
    pinned = lock["architectures"]["amd64"]["packages"][name]
    file = store.store_path(store.name(pinned["filename"].rpartition("/")[2]), pinned["sha256"])
    if not file.exists():
        pytest.skip(f"{name} is not in the store")
    subprocess.run(["dpkg-deb", "-R", str(file), str(scratch / "deb")], check=True)
    control = scratch / "deb/DEBIAN/control"
    control.write_text(re.sub("^Version: .*$", "Version: 99999999", control.read_text(), flags=re.MULTILINE))
    built = scratch / f"{name}_99999999_all.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "--root-owner-group", "-b", str(scratch / "deb"), str(built)], check=True)
    data = built.read_bytes()
    folder.server.files[f"/pool/main/c/{name}/{built.name}"] = data
    pinned |= {
        "version": "99999999",
        "filename": f"pool/main/c/{name}/{built.name}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    (folder.path / "debian-lock.json").write_text(json.dumps(lock))


def test_new_packages_move_no_model(folder: Folder, tmp_path: Path) -> None:
    first = tmp_path / "first"
    for name in IMAGES:  # this machine brings the models
        done = fresh.aikit_nix(first, "fetch", f"{name}/aikitfile.yaml", cwd=folder.path, network=True)
        assert done.returncode == 0, done.stderr
    folder.push_all(first)
    before = {name: folder.layers(name) for name in IMAGES}

    newer(folder, tmp_path)
    for name in IMAGES:
        del folder.server.files[f"/{name}.gguf"]
    second = tmp_path / "second"
    said = folder.push_all(second)
    assert not list((second / "store").glob("*.gguf"))
    after = {name: folder.layers(name) for name in IMAGES}
    for name in IMAGES:
        assert after[name][0] == before[name][0]
        assert after[name][0]["size"] > PADDING
        assert after[name][1:] != before[name][1:]
    for sent in re.findall(r"sent \(([\d.]+) MB\)", said):
        assert float(sent) < 60
    assert len(re.findall(r"there already", said)) == len(IMAGES)
