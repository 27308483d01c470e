"""Only /models, taken from an image as Kubernetes' image volumes, KServe and RamaLama do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support import container, podman, tiny_gguf
from support.image import unpack
from support.library import Library, model

NAMES = ("/models/tiny.gguf", "/models/a/日本 語.gguf")


def by_unpacking(layout: Path, to: Path) -> None:
    unpack(layout, to.with_name("whole"))
    shutil.copytree(to.with_name("whole") / "models", to, symlinks=True)


def by_podman(layout: Path, to: Path) -> None:
    if reason := podman.missing():
        pytest.skip(reason)
    with podman.storage() as engine:
        image = engine.run("pull", "--quiet", f"oci:{layout}").strip()
        # It is never started.
        engine.run("cp", f"{engine.run('create', image).strip()}:/models/.", str(to))


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("take", [by_unpacking, by_podman])
def test_a_server_of_another_image_serves_from_it(
    library: Library, tmp_path: Path, take: Callable[[Path, Path], None]
) -> None:
    content = tiny_gguf.make(tmp_path / "source.gguf").read_bytes()
    layout = library.build("oci", models=[model(tmp_path, content, path) for path in NAMES])
    folder = tmp_path / "volume"
    take(layout, folder)

    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {Path(name).relative_to("/models") for name in NAMES}
    for path in folder.rglob("*"):
        assert path.resolve(strict=True).is_relative_to(folder)
        if path.is_symlink():
            assert not path.readlink().is_absolute()
        else:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o444)
    assert (folder / "model.file").read_bytes() == content

    bare, root = library.build("oci", models=[]), tmp_path / "root"
    for name in ("model.file", "a/日本 語.gguf"):
        shutil.rmtree(root, ignore_errors=True)
        arguments = ["--model", f"/mnt/models/{name}"]
        with container.start(unpack(bare, root), root, arguments=arguments, volumes={"/mnt/models": folder}) as server:
            assert server.image.run["User"] == "65532:65532"
            assert server.chat("Hello") == tiny_gguf.SENTENCE
