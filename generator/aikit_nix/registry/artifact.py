"""Small manifests of our own in a registry: artifacts, and referrers that say something about an image.

Source: the OCI distribution specification 1.1, "Pushing Manifests with Subject" and the referrers tag schema for registries
that do not know referrers (Debian's docker-registry 2.8 does not).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aikit_nix.http.client import Answer, HttpError
from aikit_nix.registry import upload
from aikit_nix.registry.blob import Blob
from aikit_nix.registry.client import Repository
from aikit_nix.registry.manifest import INDEX, MANIFEST, Manifest
from aikit_nix.registry.reference import DIGEST

# https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidance-for-an-empty-descriptor
EMPTY = Blob.of(b"{}", "the empty configuration")
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_MOST_SAID = 64


@dataclass(frozen=True)
class Referrer:
    """Something that is said about an image: `content` of `media_type`, which is the artifact's type too."""

    media_type: str
    content: bytes
    annotations: Mapping[str, str]


def encode(value: Mapping[str, Any]) -> bytes:
    """The same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def descriptor(media_type: str, blob: Blob, **more: Any) -> dict[str, Any]:
    """How a manifest names a blob."""
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size, **more}


def _publish(repository: Repository, blobs: Sequence[Blob], manifest: bytes, reference: str) -> None:
    """Bring a small artifact into a repository. Raises AikitError."""
    for blob in blobs:
        if not repository.has(blob.digest, blob.size):
            upload.send(repository, blob)
    repository.put_manifest(reference, MANIFEST[0], manifest)


def attach(repository: Repository, subject: Manifest, referrers: Iterable[Referrer]) -> list[str]:
    """Push what is said about a manifest of the repository; the digests of the referrers, in their order. Raises AikitError."""
    entries = []
    for each in referrers:
        blob = Blob.of(each.content, each.media_type)
        manifest = encode(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST[0],
                "artifactType": each.media_type,
                "config": descriptor(EMPTY_TYPE, EMPTY),
                "layers": [descriptor(each.media_type, blob)],
                "subject": {
                    "mediaType": subject.media_type,
                    "digest": subject.digest,
                    "size": len(subject.data),
                },
                "annotations": dict(each.annotations),
            }
        )
        entry = descriptor(
            MANIFEST[0],
            Blob.of(manifest, "a referrer"),
            artifactType=each.media_type,
            annotations=dict(each.annotations),
        )
        _publish(repository, [EMPTY, blob], manifest, entry["digest"])
        entries.append(entry)
    if _referrers(repository, subject.digest) is None:
        _list_in_tag(repository, subject.digest, entries)
    return [str(entry["digest"]) for entry in entries]


def said(repository: Repository, digest: str, media_type: str, limit: int) -> Iterator[bytes]:
    """What is said of a type about a manifest, each of at most `limit` bytes; no more than the first 64. Raises AikitError.

    What has no digest is nothing, and no other address is asked for.
    """
    listed = _referrers(repository, digest)
    entries = _in_tag(repository, digest) if listed is None else listed
    found = [str(each.get("digest")) for each in entries if each.get("artifactType") == media_type]
    for name in filter(DIGEST.fullmatch, found[:_MOST_SAID]):
        for each in (repository.manifest(name).said.layers or ())[:1]:
            if DIGEST.fullmatch(blob := str(each.digest)):
                yield repository.blob(blob, limit)


def _referrers(repository: Repository, digest: str) -> list[Mapping[str, Any]] | None:
    """What the registry lists as said about a digest, of whatever digest; None where it has no such API."""

    def ask(login: Mapping[str, str]) -> Answer:
        return repository.client.get(repository.url(f"referrers/{digest}"), headers=login)

    try:
        answer = repository.asked(ask).json()
    except (HttpError, TypeError):
        return None
    return _entries(answer) if isinstance(answer, dict) and "manifests" in answer else None


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _in_tag(repository: Repository, digest: str) -> list[Mapping[str, Any]]:
    path = f"manifests/{_tag(digest)}"
    try:
        repository.head(path, {"Accept": INDEX[0]})
    except HttpError as refused:
        if refused.status == 404:
            return []
        raise repository.refused(refused, path) from None
    return _entries(repository.manifest(_tag(digest)).content)


def _entries(index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = index.get("manifests")
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _list_in_tag(repository: Repository, digest: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Add to the index that a tag named by the digest has: what clients read where there are no referrers."""
    known = _in_tag(repository, digest)
    digests = [each.get("digest") for each in known]
    known += [dict(entry) for entry in entries if entry["digest"] not in digests]
    index = encode({"schemaVersion": 2, "mediaType": INDEX[0], "manifests": known})
    repository.put_manifest(_tag(digest), INDEX[0], index)
