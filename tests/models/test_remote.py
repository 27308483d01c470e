"""What is known of a model's file before and after its bytes were seen."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.hashing import hash_file
from aikit_nix.models.remote import Remote, frame_of, key_of, layer_of, pin_of

PATH = "/models/ns/m v1.gguf"


@pytest.fixture
def remote() -> Remote:
    (model,) = parse(b"apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n", "f")[0].models
    return Remote(model, PATH, "https://h.example/m?v=1", None, None, private=True)


def test_a_key_is_a_file_name_that_tells_downloads_apart(remote: Remote) -> None:
    others = [
        replace(remote, url="https://h.example/m?v=2"),
        replace(remote, sha256="1" * 64),
        replace(remote, path="/models/m.gguf"),
    ]
    assert len({each.key for each in [remote, *others]}) == 4
    assert replace(remote, size=7, private=False).key == remote.key == key_of(remote.url, None, PATH)
    assert remote.key.isalnum()


@pytest.mark.parametrize("size", [0, 511, 512, 10_241])
def test_the_pin_of_a_file_has_the_layer_that_it_becomes(remote: Remote, tmp_path: Path, size: int) -> None:
    data = b"x" * size
    (tmp_path / "m").write_bytes(data)
    framed = frame_of(PATH)(size)
    layer = framed.header + data + framed.trailer
    (tmp_path / "layer").write_bytes(layer)
    digests = hash_file(tmp_path / "m", frame_of(PATH))
    pin = pin_of(remote, digests)
    assert pin == Pin(digests.sha256, size, digests.blake3, pin.layer, remote.url, private=True)
    assert pin.layer
    assert pin.layer.size == len(layer)
    assert pin.layer.digest == f"sha256:{hash_file(tmp_path / 'layer').sha256}"
    with tarfile.open(fileobj=io.BytesIO(layer)) as opened:
        assert [member.name for member in opened if member.isreg()] == [PATH.removeprefix("/")]
    assert layer_of(PATH, hash_file(tmp_path / "m")) is None  # nobody computed it
