"""What a manifest or an index says, whatever stands there."""

from __future__ import annotations

from typing import Any

import pytest

from aikit_nix.registry.manifest import INDEX, Descriptor, Manifest, Platform, Said


def test_what_it_says_of_others_is_kept_as_it_was_said() -> None:
    content = {
        "manifests": [{"digest": 7, "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"}}],
        "config": {"mediaType": "x", "digest": "sha256:../x"},
        "layers": [],
        "annotations": {},
    }
    assert Manifest("", "", b"", content).said == Said(
        config=Descriptor("sha256:../x", media_type="x"),
        layers=(),
        manifests=(Descriptor(7, platform=Platform("linux", "amd64")),),
    )


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"layers": {}},
        {"layers": ["x"]},
        {"manifests": [{"platform": 7}]},
        {"config": 1},
        {"config": {"mediaType": 1}},
    ],
)
def test_what_makes_no_sense_says_nothing(content: dict[str, Any]) -> None:
    assert Manifest("", "", b"", content).said == Said()


def test_an_index_is_one_by_its_kind_or_by_what_it_lists() -> None:
    found = [Manifest(kind, "", b"", content).is_index for kind in ("", INDEX[1]) for content in ({}, {"manifests": 1})]
    assert found == [False, True, True, True]
