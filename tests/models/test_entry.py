"""An entry of aikit.lock: a file as JSON, and what is left out of account."""

from __future__ import annotations

from dataclasses import replace

from aikit_nix.aikitfile.types import LayerPin, Pin
from aikit_nix.base import typed_json
from aikit_nix.models.entry import File
from aikit_nix.models.layer import layer_size
from aikit_nix.sources.gguf import Facts, Shape

PATH = "/models/m"
FULL = Pin(
    "1" * 64,
    7,
    "2" * 64,
    LayerPin(f"sha256:{'3' * 64}", layer_size(PATH, 7)),
    "https://h.example/m",
    True,
    "member",
    Facts(True, 4096, 1, Shape(1, 2, 3, 4, 5, 6, 7, 8, 9)),
    True,
)


def again(path: str, pin: Pin) -> tuple[str, Pin]:
    return typed_json.decode(typed_json.pack(File.of(path, pin)), File).pinned()


def test_a_file_is_the_same_after_json() -> None:
    for pin in (FULL, Pin("1" * 64, 0)):
        assert again(PATH, pin) == (PATH, pin)


def test_a_layer_by_version_1_of_its_rule_is_left_out_of_account() -> None:
    old = replace(FULL, layer=LayerPin(f"sha256:{'3' * 64}", 1024 + 512 + 1024))
    assert again(PATH, old) == (PATH, replace(FULL, layer=None))
