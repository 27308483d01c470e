"""Names of what lies in registries: `oci://` addresses, and names as docker, podman and skopeo take them."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass

from aikit_nix.base.errors import RefusedError, error
from aikit_nix.base.redact import shown

OLLAMA = "registry.ollama.ai"
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::\d{1,5})?|\[[0-9A-Fa-f:]+\](?::\d{1,5})?")


@dataclass(frozen=True)
class Reference:
    """An artifact: `reference` is a tag or a digest (`sha256:…`). `file` is its name below /models.

    Ollama's artifacts hold one model, which AIKit called by the repository's last word; of the others each file keeps
    the name that it has in the artifact.
    """

    text: str
    registry: str
    repository: str
    reference: str

    @property
    def is_ollama(self) -> bool:
        """Whether it is a model of Ollama's own registry."""
        return self.registry == OLLAMA

    @property
    def file(self) -> str:
        """The last word of the repository."""
        return posixpath.basename(self.repository)

    @property
    def name(self) -> str:
        """The reference, as skopeo and oras take it."""
        mark = "@" if self.reference.startswith("sha256:") else ":"
        return f"{self.registry}/{self.repository}{mark}{self.reference}"


def digest_of(data: bytes) -> str:
    """A digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def host(registry: str) -> str:
    """Where a registry is asked, which of Docker Hub has another name."""
    return "registry-1.docker.io" if registry in ("docker.io", "index.docker.io") else registry


def read(text: str) -> Reference:
    """Understand an oci:// address. Raises RefusedError."""
    rest = text.partition("://")[2]
    if "://" not in text or not rest:
        raise RefusedError("names no artifact: write oci://REGISTRY/REPOSITORY:TAG")
    if "@" in rest.split("/")[0]:
        raise RefusedError("holds a user name or password, which would end up in the flake: use `docker login`")
    host, slash, path = rest.partition("/")
    if not slash or not _HOST.fullmatch(host) or not ("." in host or ":" in host or host == "localhost"):
        raise RefusedError(
            "names no registry: write oci://REGISTRY/REPOSITORY:TAG, as oci://registry.ollama.ai/library/llama3.2:1b"
        )
    name, at, digest = path.partition("@")
    repository, colon, tag = name.partition(":")
    if not REPOSITORY.fullmatch(repository):
        raise RefusedError(f"names no repository of a registry: `{repository}`")
    if at and not DIGEST.fullmatch(digest):
        raise RefusedError("has a digest that is not sha256: and 64 lower-case hex digits")
    if colon and not TAG.fullmatch(tag):
        raise RefusedError(f"has a tag that no registry takes: `{tag}`")
    if not at and not colon:
        raise RefusedError(f"has no tag: write {text}:TAG (`latest`, if there is no other)")
    return Reference(text, host, repository, digest or tag)


def of_ollama(text: str) -> str:
    """The oci:// address of `ollama://NAME[:TAG]`, as `ollama run NAME` reads it: `library/` and `latest` go without saying."""
    name, colon, tag = text.removeprefix("ollama://").partition(":")
    return f"oci://{OLLAMA}/{name if '/' in name else f'library/{name}'}:{tag if colon else 'latest'}"


def parse(text: str, tag: str = "latest") -> Reference:
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
        return read(f"oci://{first}/{rest}")
    except RefusedError as refused:
        raise error(f"{shown(text)} {refused}", code="reference") from None
