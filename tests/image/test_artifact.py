"""Referrers in a registry that has the API for them; test_proof.py has one that has not."""

from __future__ import annotations

import json

from aikit_nix.http import Client
from aikit_nix.image import artifact
from aikit_nix.image.registry import Repository
from support.file_server import FileServer

DIGEST = f"sha256:{'1' * 64}"


def test_a_registry_says_whether_it_knows_referrers(files: FileServer) -> None:
    """One that does answers for any digest, and gets no tag in their place."""
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    files.files[f"/v2/a/knows/referrers/{DIGEST}"] = json.dumps(index).encode()
    files.files[f"/v2/a/nonsense/referrers/{DIGEST}"] = b"[]"
    with Client() as client:
        found = {
            name: artifact.knows_referrers(Repository(client, files.url.removeprefix("http://"), f"a/{name}"), DIGEST)
            for name in ("knows", "nonsense", "lacks")
        }
    assert found == {"knows": True, "nonsense": False, "lacks": False}
