"""One index over the images for several architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aikit_nix.attest import verify
from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.image import blobs, index
from aikit_nix.image.layout import Image, read_layout
from aikit_nix.image.push import Sending, of_image, push
from aikit_nix.registry import reference
from support import layouts


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    folders = [
        layouts.write(tmp_path / name, {"/models/m.gguf": b"same"}, {"program": name.encode()}, architecture=name)
        for name in ("arm64", "amd64")
    ]
    return [read_layout(folder) for folder in folders]


def test_each_architecture_finds_its_image(images: list[Image], address: str) -> None:
    target = reference.parse(f"{address}/a/llama:1")
    done = push([*map(of_image, images), index.make(images)], target, Sending())
    assert done.uploaded == 3 + 2  # the model's layer is the same
    with Client() as client:
        for image in images:
            architecture = str(image.config["architecture"])
            with blobs.opened(f"{address}/a/llama@{done.digest}", client, architecture=architecture) as found:
                assert found.image.digest == image.digest
                report = verify.Report()
                verify.image(found, None, None, report)
                assert report.differences == []
        with (
            pytest.raises(AikitError, match="has images for amd64, arm64, none for riscv64"),
            blobs.opened(f"{address}/a/llama:1", client, architecture="riscv64"),
        ):
            pass


def test_the_order_does_not_matter_and_an_architecture_counts_once(images: list[Image]) -> None:
    assert index.make(images) == index.make(images[::-1])
    with pytest.raises(AikitError, match="one image an architecture"):
        index.make([images[0], replace(images[0])])
