"""The registries that people push to, as their documentation and bug reports have them: what each does otherwise than others.

All of it is loopback's `fake_registry` with other settings. What a vendor does not say, it does as the specification has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.fake_registry import FakeRegistry

_BEARER = 'Bearer realm="http://{address}/token",service="registry, of all"'
_SCOPED = _BEARER + ',scope="repository:a/b:pull,push"'
_BASIC = 'Basic realm="Registry Realm"'


@dataclass(frozen=True)
class Vendor:
    """`settings` are the stand-in's; `because` is where they come from."""

    name: str
    because: str
    settings: dict[str, Any]

    def apply(self, registry: FakeRegistry) -> None:
        """Let a running registry be like this one."""
        registry.token_life = 1000
        for name, value in self.settings.items():
            setattr(registry, name, value)


VENDORS = [
    Vendor(
        "distribution",
        "docs: uploads go on at an address with a query, _state; 2.8 knows no referrers",
        {"location": "/v2/{repository}/blobs/uploads/{name}?_state=a%3D%3D", "challenge": _BASIC},
    ),
    Vendor(
        "harbor",
        "goharbor/harbor docs: immutable tags are 412",
        {"immutable": 412, "referrers": True, "challenge": _BEARER},
    ),
    Vendor("zot", "zotregistry.dev: Basic, referrers", {"referrers": True, "challenge": _BASIC, "patched": 202}),
    Vendor("quay", "quay/quay#1927: immutable tags", {"immutable": 409, "challenge": _BEARER, "mounts": False}),
    Vendor(
        "ghcr",
        "oras-project/rust-oci-client#35: 416 for more than 4 MiB in a request; no referrers",
        {"cap": (4 << 20, 416), "challenge": _SCOPED},
    ),
    Vendor(
        "ecr",
        "aws/containers-roadmap#2380: 400 for an immutable tag; docs: Basic, no mounts by default",
        {"immutable": 400, "challenge": _BASIC, "mounts": False, "referrers": True},
    ),
    Vendor(
        "google",
        "dotnet/sdk-container-builds#287, kitops-ml/kitops#777: one PATCH, no second",
        {"second": 400, "immutable": 400, "challenge": _BEARER},
    ),
    Vendor(
        "acr", "Azure/acr#466: two schemes", {"challenge": f"{_BEARER}\n{_BASIC}", "referrers": True, "immutable": 405}
    ),
    Vendor(
        "artifactory",
        "replicatedhq/kots#5940: 403 for an existing tag; absolute addresses, two schemes in one line",
        {
            "immutable": 403,
            "challenge": f"{_BASIC}, {_BEARER}",
            "location": "http://{address}/v2/{repository}/blobs/uploads/{name}",
            "patched": 201,
        },
    ),
    Vendor(
        "docker-hub", "docker/hub-feedback#2466: 403 for an immutable tag", {"immutable": 403, "challenge": _SCOPED}
    ),
    Vendor(
        "gitlab",
        "docs.gitlab.com: a token is refused that asks for a repository which is not open",
        {"challenge": _BEARER, "sources": False, "mounts": False},
    ),
    Vendor(
        "gitea",
        "docs.gitea.com: both schemes; the address of an upload is a query here",
        {"challenge": f"{_BASIC}\n{_BEARER}", "location": "?at={name}", "chunks": True},
    ),
    Vendor(
        "proxy",
        "what stands before a registry: 413 for more than 1 MiB, no HEAD",
        {"largest": 1 << 20, "heads": False, "challenge": _BASIC},
    ),
]
