"""What is said about an image, in a registry that knows referrers and in one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aikit_nix.http import Client
from aikit_nix.image import artifact, layout, push, reference
from aikit_nix.image.artifact import Referrer
from aikit_nix.image.registry import Repository
from support import fake_registry, layouts


@pytest.mark.parametrize("knows", [True, False])
def test_referrers_are_listed_by_the_registry_or_in_a_tag(tmp_path: Path, knows: bool) -> None:
    folder = layouts.write(tmp_path / "image", {"/models/m.gguf": b"weights"}, {"x": b"1"})
    with fake_registry.serve() as registry, Client() as client:
        registry.referrers = knows
        pushed = push.push(layout.read_layout(folder), folder, reference.parse(f"{registry.address}/a/x:1"))
        repository = Repository(client, registry.address, "a/x", actions="pull,push")
        subject = repository.manifest("1")
        for content in (b"one", b"two", b"one"):  # what is there already stays once
            (digest,) = artifact.attach(repository, subject, [Referrer("text/x", content, {"note": content.decode()})])
            manifest = json.loads(registry.manifests["a/x", digest])
            assert manifest["subject"]["digest"] == pushed.digest
            assert registry.blobs["a/x", manifest["layers"][0]["digest"]] == content
        tag = ("a/x", pushed.digest.replace(":", "-"))
        assert (tag in registry.manifests) is not knows
        if not knows:
            entries = json.loads(registry.manifests[tag])["manifests"]
            assert [entry["annotations"] for entry in entries] == [{"note": "one"}, {"note": "two"}]
            assert {entry["artifactType"] for entry in entries} == {"text/x"}
