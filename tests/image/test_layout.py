"""What an image is, as an OCI layout or a docker-archive says; neither is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.image import layout
from aikit_nix.image.layout import Image, Layer
from aikit_nix.nix import store
from aikit_nix.registry.reference import digest_of
from support import layouts
from support.command import aikit_nix


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: (image / "index.json").write_text("{"), "is no image that can be read"),
        (lambda image: (image / "index.json").write_text('{"manifests": []}'), "holds 0 images"),
        (lambda image: (image / "index.json").write_text('{"manifests": [{"digest": "../x"}]}'), "is no sha256 digest"),
        (lambda image: (image / "index.json").write_text("[" * 100_000), "is no image that can be read"),
        (
            lambda image: (image / "index.json").write_text(
                (image / "index.json").read_text().replace("docker.io/", "\\ud800")
            ),
            "is no image that can be read",
        ),
        (
            lambda image: next((image / "blobs/sha256").iterdir()).write_text("other"),
            "other bytes than its digest and size say",
        ),
        (lambda image: next((image / "blobs/sha256").iterdir()).unlink(), "no such file"),
    ],
)
def test_what_is_no_layout_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    folder = layouts.make(tmp_path / "image", {})
    for link in (folder / "blobs/sha256").iterdir():
        if link.is_symlink():
            link.unlink()
    change(folder)
    done = aikit_nix("inspect", folder, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def made(change: Callable[[Any, Any], object]) -> Image:
    """An image of one layer, whose manifest and configuration were changed."""
    digest = "sha256:" + "1" * 64
    config: dict[str, Any] = {"config": {}, "history": [{"created_by": "x"}], "rootfs": {"diff_ids": [digest]}}
    manifest: dict[str, Any] = {"config": {}, "layers": [{"digest": digest, "size": 5, "mediaType": "tar"}]}
    change(manifest, config)
    data = json.dumps(config).encode()
    if isinstance(manifest["config"], dict):
        manifest["config"].setdefault("digest", digest_of(data))
        manifest["config"].setdefault("size", len(data))
    return layout.make(json.dumps(manifest).encode(), data, [], "it")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest, _: manifest.update(config=1),
        lambda manifest, _: manifest.update(layers=None),
        lambda manifest, _: manifest["layers"].clear(),
        lambda manifest, _: manifest["layers"][0].update(size=-1),
        lambda manifest, _: manifest["layers"][0].update(size="5"),
        lambda manifest, _: manifest["layers"][0].update(size=10**400),
        lambda manifest, _: manifest["layers"][0].update(mediaType="\ud800"),
        lambda _, config: config["config"].update(Labels={"a": "\ud800"}),
        lambda manifest, _: manifest["layers"][0].update(digest="sha256:../../x"),
        lambda manifest, _: manifest["layers"][0].update(digest=1),
        lambda manifest, _: manifest["layers"][0].pop("mediaType"),
        lambda manifest, _: manifest["config"].update(digest="sha256:" + "0" * 64),
        lambda _, config: config.update(rootfs=[]),
        lambda _, config: config["rootfs"].update(diff_ids=["x"]),
        lambda _, config: config.update(history=[1]),
        lambda _, config: config["config"].update(Env=5),
        lambda _, config: config["config"].update(Env=[5]),
        lambda _, config: config["config"].update(Env=["A=\0"]),
        lambda _, config: config["config"].update(Cmd="llama-server --host"),
        lambda _, config: config["config"].update(Entrypoint={"a": 1}),
        lambda _, config: config["config"].update(Entrypoint=["\ud800"]),
        lambda _, config: config["config"].update(Healthcheck=["CMD"]),
        lambda _, config: config["config"].update(Labels=7),
        lambda _, config: config["config"].update(User=["root"]),
        lambda _, config: config.update(config=[]),
        lambda manifest, _: manifest["config"].update(size=1),
        lambda manifest, _: manifest.update(Layers=[]),
        lambda manifest, _: manifest.update(CONFIG={}),
        lambda manifest, _: manifest["layers"][0].update(Digest="sha256:" + "1" * 64),
        lambda _, config: config.update(Config={"Entrypoint": ["evil"]}),
        lambda _, config: config.update({"Config": {"Entrypoint": ["evil"]}, "config": None}),
        lambda _, config: config["config"].update(entrypoint=["evil"]),
        lambda _, config: config["config"].update({"U\u017fer": "root"}),
        lambda _, config: config["rootfs"].update(Diff_ids=[]),
    ],
)
def test_what_is_no_image_is_one_error(change: Callable[[Any, Any], object]) -> None:
    with pytest.raises(AikitError, match=r"^error: it(:| is no image that can be read)"):
        made(change)


def test_how_it_is_run_may_be_left_open() -> None:
    names = ("Entrypoint", "Cmd", "Env", "Labels", "Healthcheck", "User", "WorkingDir")
    image = made(lambda _, config: config["config"].update(dict.fromkeys(names)))
    assert (image.labels, image.models(), image.name) == ({}, {}, "")
    assert made(lambda _, config: config.pop("config")).run == {}


@pytest.mark.parametrize(
    ("label", "models"),
    [
        (json.dumps({f"/models/{name}": "sha256:" + name * 64 for name in "ba"}), {"/models/a": "a" * 64, "/models/b": "b" * 64}),
        ('{"/models/a": "sha256:../../etc", "/models/b": 1}', {}),
        ("[1]", {}),
        ("{", {}),
        ("[" * 100_000, {}),
    ],
    ids=range(5),
)  # fmt: skip
def test_the_label_says_which_models(label: str, models: dict[str, str]) -> None:
    image = made(lambda _, config: config["config"].update(Labels={layout.MODELS_LABEL: label}))
    assert image.models() == models
    for path, sha256 in models.items():
        assert image.model_file(path) == store.store_path(path.rpartition("/")[2], sha256)
    assert image.model_file("/models/other") is None


@pytest.mark.parametrize(
    ("history", "contents"),
    [
        ("model layer: /models/a.gguf", "/models/a.gguf"),
        (f"store paths: ['/nix/store/{'a' * 32}-llama-cpp-1', '/nix/store/{'b' * 32}-cacert']", "llama-cpp-1, cacert"),
        ("dockerTools: texts", "texts"),
        ("", "(the history does not say)"),
    ],
)
def test_the_history_says_what_a_layer_is(history: str, contents: str) -> None:
    assert Layer("", 0, "", "", history).contents == contents
