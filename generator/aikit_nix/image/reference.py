"""Names of images in registries, as docker, podman and skopeo take them."""

from __future__ import annotations

from aikit_nix.errors import error
from aikit_nix.redact import shown
from aikit_nix.sources import RefusedError, oci


def parse(text: str, tag: str = "latest") -> oci.Artifact:
    """`[docker://]REGISTRY/REPOSITORY[:TAG|@DIGEST]`; `tag` where it says neither. Raises AikitError.

    Where the first word is no host the registry is Docker Hub, as for docker and podman.
    """
    name = text.removeprefix("docker://").removeprefix("oci://")
    first, slash, rest = name.partition("/")
    if not slash:
        raise error(f"{shown(text)} names no registry: write REGISTRY/REPOSITORY:TAG, as ghcr.io/me/model:1")
    if not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", name
    if "@" not in rest and ":" not in rest.rpartition("/")[2]:
        rest += f":{tag}"
    try:
        return oci.read(f"oci://{first}/{rest}")
    except RefusedError as refused:
        raise error(f"{shown(text)} {refused}", code="reference") from None
