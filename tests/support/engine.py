"""conftest, which has Open Policy Agent in it, with the policy that docs/proof.md shows."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from support import docs


def accepts(folder: Path, envelopes: Sequence[Path], *, but: str = "", licenses: str | None = None) -> None:
    """Assert that it accepts statements that cosign verified, or refuses them with a message (`but`)."""
    (text,) = docs.blocks("proof.md", "With other policy engines", "rego")
    (folder / "policy").mkdir(exist_ok=True)
    own = text.replace('{"apache-2.0", "mit"}', licenses) if licenses else text
    (folder / "policy/rebuilds.rego").write_text(own)
    argv = ["conftest", "test", "--combine", "--no-color", *map(str, envelopes)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, but in done.stdout) == (int(bool(but)), True), done.stdout + done.stderr


def kyverno(folder: Path, image: str, keys: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Kyverno's command line judging a Pod of an image, with the policy that the docs show and two signers' public keys."""
    (text,) = docs.blocks("proof.md", "With other policy engines", "yaml")
    policy = yaml.safe_load(text)
    policy["spec"]["matchImageReferences"] = [{"glob": f"{image.rpartition(':')[0]}*"}]
    for attestor, key in zip(policy["spec"]["attestors"], keys, strict=True):
        attestor["cosign"]["key"]["data"] = key.read_text()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llama", "namespace": "default"}}
    pod["spec"] = {"containers": [{"name": "llama", "image": image}]}
    for name, value in (("policy", policy), ("pod", pod)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))
    argv = ["kyverno", "apply", "policy.yaml", "--resource", "pod.yaml", "--registry", "--remove-color"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
