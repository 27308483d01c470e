"""What container engines keep of two images of one model: its layer once, unpacked once. No container is started."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.nix import store
from support import dockerd, podman
from support.image import unpack
from support.library import Library, forget, model

SIZE = 4 << 20
CHANGES = {
    # the images before and after: runtime and text
    "config": (("avx", "before"), ("avx", "after")),
    "engine": (("avx", "text"), ("avx2", "text")),
}


@dataclass(frozen=True)
class Images:
    """A model's image before and after a change."""

    library: Library
    model: dict[str, Any]
    change: str

    def build(self, index: int, output: str) -> Path:
        runtime, text = CHANGES[self.change][index]
        files = [{"path": "/config.yaml", "text": text}]
        return self.library.build(f"image-{runtime}.{output}", models=[self.model], files=files)

    def added(self) -> int:
        """The layers of the second that are not the first's, or lie on such a one."""
        one, two = (unpack(self.build(index, "oci")).layers for index in (0, 1))
        assert one[0].digest == two[0].digest == self.layer
        shared = next(index for index, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1])
        return len(two) - shared

    @property
    def layer(self) -> str:
        return str(self.model["layer"]["digest"])


@pytest.fixture(params=CHANGES)
def images(library: Library, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Images]:
    made = model(tmp_path, os.urandom(SIZE))
    yield Images(library, made, request.param)
    forget(store.store_path(made["name"], made["sha256"]))


def unpacked(folder: Path) -> dict[Path, int]:
    """The model's copies, each with the time when it was written."""
    return {file: file.stat().st_ctime_ns for file in folder.rglob("models/tiny.gguf")}


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_podman_keeps_the_models_layer(images: Images, driver: str) -> None:
    """It takes the second image from a layout in which the model's layer is not even there."""
    if reason := podman.missing():
        pytest.skip(reason)
    with podman.storage(driver) as engine:
        try:
            engine.run("info")
        except AssertionError as problem:
            pytest.skip(f"podman has no {driver} storage here: {problem}")

        def layers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads((engine.storage / f"{driver}-layers/layers.json").read_bytes())
            return found

        engine.run("pull", f"oci:{images.build(0, 'oci')}")
        before, files = layers(), unpacked(engine.storage)
        engine.run("pull", f"oci:{images.build(1, 'manifest')}")
        after = layers()
        assert [layer["diff-digest"] for layer in after].count(images.layer) == 1
        assert len(after) == len(before) + images.added()
        assert before == [layer for layer in after if layer in before]
        assert files.items() <= unpacked(engine.storage).items()
        if driver == "overlay":  # vfs copies all that lies below a layer
            assert len(files) == len(unpacked(engine.storage)) == 1


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_docker_keeps_the_models_layer(images: Images, driver: str, tmp_path: Path) -> None:
    if reason := dockerd.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            env = stack.enter_context(dockerd.serve(driver))
        except RuntimeError as problem:
            pytest.skip(str(problem))

        def load(script: Path) -> None:
            with subprocess.Popen([script], stdout=subprocess.PIPE) as stream:
                argv = ["docker", "load"]
                done = subprocess.run(
                    argv, env={**os.environ, **env}, stdin=stream.stdout, capture_output=True, text=True
                )
            assert done.returncode == 0, done.stderr

        data = Path(env["DOCKER_HOST"].removeprefix("unix://")).parent / "data"

        def layers() -> dict[str, str]:
            """Of each layer its chain of those below, and its own digest."""
            return {file.parent.name: file.read_text() for file in data.glob(f"image/{driver}/layerdb/sha256/*/diff")}

        load(images.build(0, "stream"))
        before, files = layers(), unpacked(data)
        load(images.build(1, "stream"))
        after = layers()
        assert list(after.values()).count(images.layer) == 1
        assert len(after) == len(before) + images.added()
        assert before.items() <= after.items()
        assert files.items() <= unpacked(data).items()
        if driver == "overlay2":
            assert len(files) == len(unpacked(data)) == 1
