"""Push, push again, change, mount, attest and pull at each registry that people use."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aikit_nix.http.client import Client
from aikit_nix.image import find, layout
from aikit_nix.registry import artifact, upload
from aikit_nix.registry.artifact import Referrer
from aikit_nix.registry.blob import Blob
from aikit_nix.registry.client import Repository
from support import fake_registry, layouts
from support.fake_registry import LOGIN, FakeRegistry
from support.pushes import MIB, PATH, TIMEOUTS, refused, send
from support.vendors import VENDORS, Vendor

pytestmark = pytest.mark.usefixtures("own_folders")
each_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)


@contextmanager
def serve(vendor: Vendor, tmp_path: Path) -> Iterator[FakeRegistry]:
    with fake_registry.serve() as running:
        vendor.apply(running)
        auth = base64.b64encode(":".join(LOGIN).encode()).decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {running.address: {"auth": auth}}}))
        yield running


@each_vendor
def test_a_vendor(vendor: Vendor, tmp_path: Path) -> None:
    one = layouts.make(tmp_path / "one", {PATH: os.urandom(5 * MIB)}, blobs=True)
    other = layouts.make(tmp_path / "other", {PATH: os.urandom(MIB)}, blobs=True)
    image = layout.read_layout(one)
    with serve(vendor, tmp_path) as registry:
        there = f"{registry.address}/a/b"
        first = send(one, f"{there}:1", chunk=2 * MIB)
        assert registry.manifests["a/b", "1"] == image.manifest
        assert (
            registry.blobs["a/b", image.layers[0].digest] == layout.blob_path(one, image.layers[0].digest).read_bytes()
        )

        before = registry.count("PUT")
        again = send(one, f"{there}:1", chunk=2 * MIB)
        assert (again.digest, again.uploaded) == (first.digest, 0)
        assert registry.count("PUT") == before  # nothing was published anew

        if vendor.settings.get("immutable"):
            said = refused(other, f"{there}:1", chunk=2 * MIB)
            assert f"{there}:1 is {first.digest} already" in said
            assert "push under another tag" in said
            assert registry.manifests["a/b", "1"] == image.manifest
        changed = send(other, f"{there}:{2 if vendor.settings.get('immutable') else 1}", chunk=2 * MIB)
        assert registry.manifests["a/b", changed.digest] == layout.read_layout(other).manifest

        mounted = send(one, f"{registry.address}/c/d:1", chunk=2 * MIB, mount_from=["a/b"])
        assert mounted.mounted == (3 if vendor.settings.get("mounts", True) else 0)
        assert registry.manifests["c/d", "1"] == image.manifest

        with Client(TIMEOUTS) as client:
            repository = Repository(client, registry.address, "a/b", actions="pull,push")
            bill = Referrer("application/vnd.cyclonedx+json", b"{}", {})
            for _ in range(2):
                artifact.attach(
                    repository, repository.manifest("1" if vendor.settings.get("immutable") else first.digest), [bill]
                )
        tag = first.digest.replace(":", "-")
        assert (("a/b", tag) in registry.manifests) is not vendor.settings.get("referrers", False)

        assert find.image_of(f"{registry.address}/c/d:1").digest == first.digest


_REFUSALS = (400, 404, 405, 409, 411, 415, 416, 422, 501)


@pytest.mark.parametrize(
    ("way", "value"),
    [
        *(("second", status) for status in (*_REFUSALS, 403, 413, 500)),
        *(("cap", (700_000, status)) for status in (*_REFUSALS, 408, 413, 500, 502, 504)),
    ],
)
def test_whatever_the_refusal_is(way: str, value: object, fake: FakeRegistry) -> None:
    """Of a second chunk, or of a request that is too large for something on the way."""
    setattr(fake, way, value)
    data = os.urandom(9 * MIB)
    with Client(TIMEOUTS) as client:
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        upload.send(there, Blob.of(data, "the model"), chunk=4 * MIB)
    assert data in fake.blobs.values()


def test_a_quota_is_said(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(3 * MIB)}, blobs=True)
    fake.quota = 2 * MIB
    said = refused(full, f"{fake.address}/a:1")
    assert "refuses this for a limit or rule of its own" in said
    assert "exceed the configured upper limit" in said
    assert "login" not in said


def test_a_limit_that_nothing_fits_is_said(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(3 * MIB)}, blobs=True)
    fake.largest = 1000
    assert "takes nothing as large" in refused(full, f"{fake.address}/a:1")
