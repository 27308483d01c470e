"""What is said about an image, in a registry that knows referrers and in one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.registry import artifact
from aikit_nix.registry.artifact import Referrer
from aikit_nix.registry.client import Repository
from aikit_nix.registry.reference import digest_of
from support import fake_registry, layouts, pushes
from support.fake_registry import FakeRegistry

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.mark.parametrize("knows", [True, False])
def test_referrers_are_listed_by_the_registry_or_in_a_tag(tmp_path: Path, knows: bool) -> None:
    folder = layouts.write(tmp_path / "image", {"/models/m.gguf": b"weights"}, {"x": b"1"})
    with fake_registry.serve() as registry, Client() as client:
        registry.referrers = knows
        pushed = pushes.send(folder, f"{registry.address}/a/x:1")
        repository = Repository(client, registry.address, "a/x", actions="pull,push")
        subject = repository.manifest("1")
        for content in (b"one", b"two", b"one"):  # what is there already stays once
            (digest,) = artifact.attach(repository, subject, [Referrer("text/x", content, {"note": content.decode()})])
            manifest = json.loads(registry.manifests["a/x", digest])
            assert manifest["subject"]["digest"] == pushed.digest
            assert registry.blobs["a/x", manifest["layers"][0]["digest"]] == content
        assert list(artifact.said(repository, pushed.digest, "text/x", 3)) == [b"one", b"two"]
        assert list(artifact.said(repository, pushed.digest, "text/y", 3)) == []
        with pytest.raises(AikitError, match="more than 2 bytes"):
            list(artifact.said(repository, pushed.digest, "text/x", 2))
        tag = ("a/x", pushed.digest.replace(":", "-"))
        assert (tag in registry.manifests) is not knows
        if not knows:
            entries = json.loads(registry.manifests[tag])["manifests"]
            assert [entry["annotations"] for entry in entries] == [{"note": "one"}, {"note": "two"}]
            assert {entry["artifactType"] for entry in entries} == {"text/x"}


@pytest.mark.parametrize("listed", [5, "text", {"a": 1}, [1], [["digest"]], None])
def test_a_tag_that_lists_nonsense_is_no_obstacle(fake: FakeRegistry, listed: Any) -> None:
    """Whoever may push to the repository may have written it."""
    fake.manifests["a/x", "1"] = b'{"mediaType": "x", "layers": []}'
    with Client() as client:
        repository = Repository(client, fake.address, "a/x", actions="pull,push")
        subject = repository.manifest("1")
        tag = ("a/x", subject.digest.replace(":", "-"))
        fake.manifests[tag] = json.dumps({"mediaType": "x", "manifests": listed}).encode()
        (digest,) = artifact.attach(repository, subject, [Referrer("text/x", b"said", {})])
    assert [entry["digest"] for entry in json.loads(fake.manifests[tag])["manifests"]] == [digest]


def test_a_tag_that_could_not_be_written_again_is_said(fake: FakeRegistry) -> None:
    fake.manifests["a/x", "1"] = b'{"mediaType": "x", "layers": []}'
    with Client() as client:
        repository = Repository(client, fake.address, "a/x", actions="pull,push")
        subject = repository.manifest("1")
        tag = subject.digest.replace(":", "-")
        fake.manifests["a/x", tag] = b'{"manifests": [{"digest": "\\ud800"}]}'
        with pytest.raises(AikitError, match=f"{tag} is no manifest"):
            artifact.attach(repository, subject, [Referrer("text/x", b"said", {})])


def test_no_address_that_stands_for_a_digest_is_asked_for(fake: FakeRegistry) -> None:
    """Whoever may push beside an image may have put anything there: the login goes with what is asked for."""
    digest = "sha256:" + "1" * 64
    odd = json.dumps({"layers": [{"digest": "../../../x"}]}).encode()
    fake.manifests["a/x", odd_digest := digest_of(odd)] = odd
    entries = [{"artifactType": "text/x", "digest": each} for each in ("../../../x", None, ["x"], odd_digest)]
    fake.manifests["a/x", digest.replace(":", "-")] = json.dumps({"manifests": entries}).encode()
    with Client() as client:
        assert list(artifact.said(Repository(client, fake.address, "a/x"), digest, "text/x", 9)) == []
