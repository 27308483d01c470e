"""`aikit-nix k8s`: manifests that a cluster takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from aikit_nix.aikitfile.types import Runtime
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.image import kubernetes
from support import kubernetes as api
from support import recipes
from support.command import aikit_nix

SYSTEM = "x86_64-linux"
REFERENCE = f"ghcr.io/me/llama@sha256:{'0' * 64}"


def manifests(folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """By their kind."""
    text = kubernetes.manifests(materials.read(folder), options.pop("system", SYSTEM), REFERENCE, **options)
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def pod(found: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification, and that of its one container."""
    spec: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_a_deployment_is_as_strict_as_the_image_allows(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    found = manifests(tmp_path)
    assert set(found) == {"Deployment", "Service"}
    spec, container = pod(found)
    assert container["image"] == REFERENCE
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels == found["Deployment"]["spec"]["selector"]["matchLabels"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


@pytest.mark.parametrize(
    ("packages", "ready", "alive"), [(Packages.DEBIAN, "/health", "/health"), (Packages.NIXPKGS, "/readyz", "/healthz")]
)
def test_the_server_is_asked_where_it_answers(tmp_path: Path, packages: Packages, ready: str, alive: str) -> None:
    recipes.write(tmp_path, packages=packages)
    _, container = pod(manifests(tmp_path))
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": ready, "readiness": ready, "liveness": alive}


def test_without_a_header_memory_follows_from_the_models_and_a_gpu_from_the_runtime(tmp_path: Path) -> None:
    recipes.write(tmp_path, b"x" * 3_000_000, packages=Packages.NIXPKGS)
    assert "no header of theirs" in kubernetes.manifests(materials.read(tmp_path), SYSTEM, REFERENCE)
    assert pod(manifests(tmp_path))[1]["resources"] == {
        "requests": {"cpu": "2", "memory": "1027Mi"},
        "limits": {"cpu": "2", "memory": "2054Mi"},
    }
    recipes.render(tmp_path, packages=Packages.NIXPKGS, runtime=Runtime.CUDA)
    found = manifests(tmp_path)
    assert pod(found)[1]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_manifest_without_memory_says_so(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    plan = json.loads((tmp_path / "aikit/plan.json").read_text())
    models = [{**model, "size": None} for model in plan["models"]]
    recipes.change(tmp_path / "aikit/plan.json", memory=None, models=models)
    assert "# No memory: nobody said how large" in kubernetes.manifests(materials.read(tmp_path), SYSTEM, REFERENCE)
    assert pod(manifests(tmp_path))[1]["resources"] == {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}


def test_memory_is_what_the_plan_says(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    recipes.change(tmp_path / "aikit/plan.json", memory={"request": 300 << 20, "limit": (512 << 20) - 1})
    resources = pod(manifests(tmp_path))[1]["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("300Mi", "512Mi")


def test_a_pod_that_is_deleted_has_time_for_its_requests(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    found = manifests(tmp_path)
    spec, container = pod(found)
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(
        environment(container)["AIKIT_NIX_STOP_SECONDS"]
    )
    assert waits + 1 < spec["terminationGracePeriodSeconds"]
    startup = container["startupProbe"]
    assert (
        startup["periodSeconds"] * startup["failureThreshold"] < found["Deployment"]["spec"]["progressDeadlineSeconds"]
    )


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize(
    ("packages", "threads", "key"),
    [(Packages.DEBIAN, "LLAMA_ARG_THREADS", "LLAMA_API_KEY"), (Packages.NIXPKGS, "LOCALAI_THREADS", "LOCALAI_API_KEY")],
)
def test_wishes_are_granted(tmp_path: Path, packages: Packages, threads: str, key: str) -> None:
    recipes.write(tmp_path, packages=packages)
    found = manifests(tmp_path, wishes=kubernetes.Wishes(6, "ai", network_policy=True, key_secret="keys"))
    assert {each["metadata"]["namespace"] for each in found.values()} == {"ai"}
    _, container = pod(found)
    assert container["resources"]["limits"]["cpu"] == environment(container)[threads] == "6"
    assert environment(container)[key] == {"secretKeyRef": {"name": "keys", "key": "api-key"}}
    policy = found["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == found["Deployment"]["spec"]["selector"]
    assert (policy["policyTypes"], "egress" in policy) == (["Ingress", "Egress"], False)


def test_an_index_is_for_nodes_of_every_architecture(tmp_path: Path) -> None:
    recipes.write(tmp_path, packages=Packages.NIXPKGS)
    recipes.render(tmp_path, packages=Packages.NIXPKGS, runtime=Runtime.CUDA)
    assert "nodeSelector" not in pod(manifests(tmp_path, system=None))[0]
    assert pod(manifests(tmp_path, system="aarch64-linux"))[0]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


def test_an_image_volume_has_the_models_and_a_config_map_the_texts(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    found = manifests(tmp_path, server="ghcr.io/ggml-org/llama.cpp:server")
    spec, container = pod(found)
    assert container["image"] == "ghcr.io/ggml-org/llama.cpp:server"
    assert container["args"] == list(materials.read(tmp_path).plan.entrypoint)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["models"]["image"] == {"reference": REFERENCE, "pullPolicy": "IfNotPresent"}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/models"] == {"name": "models", "mountPath": "/models", "subPath": "models", "readOnly": True}
    (config,) = (file for file in materials.read(tmp_path).plan.files if file.path == "/config.yaml")
    assert found["ConfigMap"]["data"][mounts["/config.yaml"]["subPath"]] == config.text


def test_localai_brings_its_own_backends(tmp_path: Path) -> None:
    recipes.write(tmp_path, packages=Packages.NIXPKGS)
    with pytest.raises(AikitError, match=r"--server is for llama.cpp's server"):
        manifests(tmp_path, server="localai/localai")


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("llama", "llama"),
        ("a/b_c.d--e", "b-c-d-e"),
        ("7b", "model-7b"),
        ("on", "on"),
        ("null", "null"),
        ("x" * 90, "x" * 50),
    ],
)
def test_names_are_dns_labels(tmp_path: Path, image: str, name: str) -> None:
    recipes.write(tmp_path)
    recipes.render(tmp_path, packages=Packages.DEBIAN, name=image)
    assert manifests(tmp_path)["Service"]["metadata"]["name"] == name


def test_a_reference_stays_one_value(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    hostile = "x:1'\"\n      hostNetwork: true\u2028#"
    text = kubernetes.manifests(materials.read(tmp_path), SYSTEM, hostile)
    (deployment, _) = yaml.safe_load_all(text)
    spec = deployment["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == hostile
    assert "hostNetwork" not in spec


@pytest.mark.parametrize(
    "text", ["a\x85b\u2028c\x7fd\ufeff\uffff\x1b", "---\nkind: Pod\n", "{{ x }}\r\n\ttab", "'\"\\ü\U0001f600"]
)
def test_a_text_stays_the_same_text(tmp_path: Path, text: str) -> None:
    """Prompt templates and configs are untrusted, and YAML has other line breaks than JSON."""
    recipes.write(tmp_path)
    files = [{"path": "/config.yaml", "text": text}, {"path": "/b\n: c", "text": "x"}]
    recipes.change(tmp_path / "aikit/plan.json", files=files, env={"A": text}, cmd=[text])
    found = manifests(tmp_path, server="x:1")
    assert list(found["ConfigMap"]["data"].values()) == [text, "x"]
    _, container = pod(found)
    assert container["args"][-1] == text
    assert {"name": "A", "value": text} in container["env"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]][-2:] == ["/config.yaml", "/b\n: c"]


@pytest.mark.parametrize("wishes", [None, kubernetes.Wishes(1, "ai", network_policy=True, key_secret="keys")])
@pytest.mark.parametrize("server", [None, "ghcr.io/ggml-org/llama.cpp:server"])
def test_kubernetes_has_every_field(tmp_path: Path, server: str | None, wishes: kubernetes.Wishes | None) -> None:
    recipes.write(tmp_path)
    for each in manifests(tmp_path, server=server, wishes=wishes).values():
        assert api.problems(each) == []


def test_a_wrong_manifest_is_noticed(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    deployment = manifests(tmp_path)["Deployment"]
    deployment["spec"] |= {"replicas": "1", "replica": 1}
    del deployment["spec"]["selector"]
    found = "Deployment.spec.replica is no field, Deployment.spec.replicas is '1', no int, Deployment.spec.selector is missing"
    assert ", ".join(sorted(api.problems(deployment))) == found


def test_the_command(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    done = aikit_nix("k8s", REFERENCE, "-o", "pod.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote pod.yaml\n", "")
    found = materials.read(tmp_path / "flake")
    assert (tmp_path / "pod.yaml").read_text() == kubernetes.manifests(found, found.system(), REFERENCE)
    for reference in ([], [""]):
        done = aikit_nix("k8s", "--all-systems", *reference, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, kubernetes.manifests(found, None, None))
        assert "no node can pull the image by that name" in done.stderr


def test_kubernetes_makes_no_variables_of_a_text(tmp_path: Path) -> None:
    """`$(HOME)` in arguments and variables is the variable's value, unless the dollar is doubled."""
    recipes.write(tmp_path)
    recipes.change(tmp_path / "aikit/plan.json", env={"A": "$(HOME)"}, cmd=["$(HOME) $$x"])
    _, container = pod(manifests(tmp_path, server="x:1"))
    assert container["args"][-1] == "$$(HOME) $$$$x"
    assert environment(container)["A"] == "$$(HOME)"


@pytest.mark.parametrize("name", ["", "AI", "a b", "a/b", "-a", "a.", "x" * 64])
@pytest.mark.parametrize("option", ["namespace", "key_secret"])
def test_a_name_that_kubernetes_refuses_is_refused(tmp_path: Path, option: str, name: str) -> None:
    recipes.write(tmp_path)
    with pytest.raises(AikitError, match=f"--{option.replace('_', '-')} .* is no name that Kubernetes takes"):
        manifests(tmp_path, wishes=kubernetes.Wishes(**{option: name}))  # type: ignore[arg-type]


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    for args in (["\udcff"], ["--server", "\udcff"], ["--namespace", "\udcff"]):
        done = aikit_nix("k8s", *args, "-o", "pod.yaml", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n"), "is no UTF-8" in done.stderr) == (1, 1, True), done.stderr
