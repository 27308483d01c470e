"""nix/lib: what Nix itself makes of an aikitfile and its lock, compared with what the Python package makes of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base import data
from aikit_nix.nix import store
from support.command import aikit_nix

pytestmark = pytest.mark.usefixtures("nix")

LIB = data.NIX / "lib"
SHA256 = "ab" * 32
AIKITFILE = {
    "apiVersion": "v1alpha1",
    "debug": True,
    "runtime": "avx2",
    "backends": ["stablediffusion"],
    "models": [
        {
            "name": "tiny",
            "source": "https://example.com/a%20b~1.gguf",
            "sha256": SHA256,
            "promptTemplates": [{"name": "chat", "template": "{{.Input}}\n"}],
        },
        {"name": "sub/second", "source": "https://example.com/second.gguf", "sha256": SHA256},
    ],
    "config": "- name: tiny\n  backend: llama-cpp\n  parameters:\n    model: second.gguf\n",
}
LOCK: dict[str, Any] = {
    "version": 1,
    "models": [
        {
            "name": "sub/second",
            "source": "https://example.com/second.gguf",
            "files": [{"path": "/models/sub/second.gguf", "url": "https://example.com/second.gguf"}],
        },
        {
            "name": "tiny",
            "source": "https://example.com/a%20b~1.gguf",
            "files": [{"path": "/models/a b~1.gguf", "url": "https://example.com/a%20b~1.gguf"}],
        },
    ],
}


def evaluate(expression: str, **files: Path) -> Any:
    argv = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]
    for name, file in files.items():
        argv += ["--arg", name, str(file)]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("file", sorted(LIB.glob("test_*.nix")), ids=lambda file: file.stem)
def test_nix_tests_itself(file: Path) -> None:
    assert evaluate("{ file }: import file", file=file) == []


def test_a_plan_made_by_nix_is_gens(tmp_path: Path) -> None:
    # YAML reads JSON: one text for both.
    (tmp_path / "aikitfile.json").write_text(json.dumps(AIKITFILE))
    for model in LOCK["models"]:
        for file in model["files"]:
            file["sha256"] = SHA256
    done = aikit_nix("gen", "aikitfile.json", "--elsewhere", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "aikit.lock").write_text(json.dumps(LOCK))
    ours = evaluate(
        "{ plan, aikitfile, lock }: import plan { inherit aikitfile lock; }",
        plan=LIB / "plan.nix",
        aikitfile=tmp_path / "aikitfile.json",
        lock=tmp_path / "aikit.lock",
    )
    written = json.loads((tmp_path / "out/aikit/plan.json").read_text())
    for plan in (ours, written):
        plan["models"] = sorted(
            (model["path"], model["name"], model["url"], model["sha256"]) for model in plan["models"]
        )
    assert ours["image"]["name"] == written["image"]["name"]
    labels = [json.loads(plan["image"]["labels"]["aikit-nix.models"]) for plan in (ours, written)]
    assert labels[0] == labels[1]
    # What Nix does not need: who wrote the plan, of what, and for Kubernetes how much memory it takes.
    apart = {"generator", "image", "memory", "sources"}
    assert set(written) - set(ours) <= apart
    assert {key: ours[key] for key in ours.keys() - apart} == {key: written[key] for key in ours.keys() - apart}


@pytest.mark.parametrize(
    "name", ["a.gguf", "a b~1.gguf", "é 模型.gguf", "..x", "x.drv", ".", "m" * 300 + "é.gguf", "." * 210]
)
def test_a_files_name_in_the_store_is_the_packages(name: str) -> None:
    lock = {"version": 1, "models": [{"name": "m", "files": [{"path": f"/models/{name}", "sha256": SHA256}]}]}
    text = json.dumps(json.dumps(lock))
    (model,) = evaluate(f"{{ lock }}: (import lock (builtins.fromJSON {text})).models", lock=LIB / "lock.nix")
    assert model["name"] == store.name(name)
