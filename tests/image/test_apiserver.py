"""Manifests at a real API server, whose admission is what a strict cluster's owner sets up: AIKIT_KUBERNETES=1 compiles it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from aikit_nix.aikitfile.types import Runtime
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.image import kubernetes
from aikit_nix.image.kubernetes import Wishes
from support import apiserver, recipes
from support.apiserver import Answer, Server, UnavailableError

DOCS = Path(__file__).parents[2] / "docs/kubernetes.md"
REFERENCE = f"ghcr.io/me/llama@sha256:{'0' * 64}"
NAMESPACE = "strict"
# Whose kinds of objects the docs show, and the files that define them.
DEFINITIONS = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    "github.com/kedacore/keda/v2@v2.21.0": "config/crd/bases/keda.sh_scaledobjects.yaml",
}
# What a namespace's owner lets in: only Pods that say what they need, within bounds.
QUOTA = {
    f"{kind}.{name}": size for kind in ("requests", "limits") for name, size in {"cpu": "64", "memory": "64Gi"}.items()
}
QUOTA |= {"pods": "20", "requests.nvidia.com/gpu": "1"}
LIMITS = [
    {"type": "Container", "min": {"cpu": "100m", "memory": "16Mi"}},
    {"type": "Pod", "max": {"cpu": "8", "memory": "8Gi"}},
]


def named(version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    try:
        programs = apiserver.programs()
        definitions = [apiserver.module(module) / file for module, file in DEFINITIONS.items()]
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with apiserver.serve(programs) as server:
        namespace = named("v1", "Namespace", NAMESPACE)
        namespace["metadata"]["labels"] = {
            f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
        }
        quota = named("v1", "ResourceQuota", "quota", spec={"hard": QUOTA})
        controllers = [
            namespace,
            named("v1", "ServiceAccount", "default"),
            named("v1", "LimitRange", "limits", spec={"limits": LIMITS}),
            quota,
            *(yaml.safe_load(file.read_text()) for file in definitions),
        ]
        for each in controllers:
            assert not server.apply(each, NAMESPACE).message
        # The quota's controller would write this.
        status = {"hard": QUOTA, "used": dict.fromkeys(QUOTA, "0")}
        assert not server.apply({**quota, "status": status}, NAMESPACE, part="/status").message
        yield server


def accept(server: Server, manifest: Mapping[str, Any]) -> None:
    """Dry, then for real; a warning is none, either."""
    for dry in (True, False):
        answer = server.apply(manifest, NAMESPACE, dry=dry)
        assert (answer.message, answer.warnings) == ("", ()), manifest["kind"]


def pod_of(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """What the Deployment's and the ReplicaSet's controllers make of its template."""
    template = copy.deepcopy(deployment["spec"]["template"])
    template["metadata"]["name"] = deployment["metadata"]["name"]
    return {"apiVersion": "v1", "kind": "Pod", **template}


@pytest.mark.parametrize(
    ("packages", "runtime", "server_image", "wishes"),
    [
        (Packages.DEBIAN, None, None, Wishes()),
        (Packages.DEBIAN, None, None, Wishes(1, NAMESPACE, network_policy=True, key_secret="llama-key")),
        (Packages.DEBIAN, None, "ghcr.io/ggml-org/llama.cpp:server", Wishes(key_secret="llama-key")),
        (Packages.NIXPKGS, None, None, Wishes(8, network_policy=True, key_secret="llama-key")),
        (Packages.NIXPKGS, Runtime.CUDA, None, Wishes()),
    ],
    ids=["plain", "wishes", "image volume", "LocalAI", "GPU"],
)
def test_all_that_k8s_writes_is_accepted(
    server: Server,
    tmp_path: Path,
    packages: Packages,
    runtime: Runtime | None,
    server_image: str | None,
    wishes: Wishes,
) -> None:
    recipes.write(tmp_path, packages=packages)
    recipes.render(tmp_path, packages=packages, runtime=runtime, name=f"test-{tmp_path.name}"[:40])
    accept(server, named("v1", "Secret", "llama-key", stringData={"api-key": "0" * 64}))
    text = kubernetes.manifests(materials.read(tmp_path), "x86_64-linux", REFERENCE, server_image, wishes)
    found = list(yaml.safe_load_all(text))
    for each in found:
        accept(server, each)
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    accept(server, pod_of(deployment))


def shown() -> list[dict[str, Any]]:
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)]


def test_what_the_docs_show_is_accepted(server: Server) -> None:
    known = [each for each in shown() if each["kind"] in ("Pod", "PodMonitor", "ScaledObject")]
    assert len(known) == 3
    for each in known:
        accept(server, each)


def refusal(server: Server, **changes: Any) -> Answer:
    """The answer to a Pod that would be let in, with changes of its container."""
    (pod,) = (each for each in shown() if each["kind"] == "Pod")
    spec = pod["spec"]
    assert not server.apply(named("v1", "Pod", "other", spec=spec), NAMESPACE, dry=True).message
    spec["containers"][0].update(changes)
    return server.apply(named("v1", "Pod", "other", spec=spec), NAMESPACE, dry=True)


def test_it_refuses_what_a_strict_cluster_refuses(server: Server) -> None:
    assert "maximum memory usage per Pod is 8Gi.  No limit is specified" in refusal(server, resources={}).message
    enough = {"cpu": "1", "memory": "1Gi"}
    assert "exceeded quota: quota" in refusal(server, resources={"limits": {**enough, "nvidia.com/gpu": "2"}}).message
    assert 'violates PodSecurity "restricted:latest"' in refusal(server, securityContext={}).message
    assert "field not declared in schema" in refusal(server, imagePullPolice="Never").message
