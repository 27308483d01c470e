"""Faithful to AIKit's versions, or different in a way that docs/aikitfile.md lists."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import plan
from aikit_nix.sources import HubFile
from support import aikit_versions as versions
from support.aikit_versions import DOCUMENTED
from support.pins import pinned

ROOT = Path(__file__).resolve().parents[1]
SHA = "1" * 64


def parse_text(text: str) -> Aikitfile:
    return parse(text.encode(), "aikitfile.yaml")[0]


def with_models(more: str = "") -> str:
    return f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: m.gguf}}\n{more}"


@pytest.mark.parametrize("row", versions.SOURCES, ids=lambda row: f"{row.source} as {row.name}")
def test_a_model_lands_where_aikit_put_it_or_a_documented_divergence(row: versions.SourceRow) -> None:
    text = f"apiVersion: v1alpha1\nmodels:\n  - {json.dumps({'name': row.name, 'source': row.source})}\n"
    try:
        ours: str | None = parse_text(text).models[0].path
    except AikitError as failed:
        ours = None
        assert {finding.code for finding in failed.diagnostics} <= {"source", "name", "sha256-checked"}
    assert ours == row.ours
    assert (row.differs in DOCUMENTED) if ours != row.aikit else row.differs is None


@pytest.mark.parametrize("source", versions.HF_URLS)
def test_a_hugging_face_source_is_fetched_from_aikits_address(source: str) -> None:
    text = f"apiVersion: v1alpha1\nmodels:\n  - {{name: m, source: '{source}'}}\n"
    found = parse_text(text).models[0].source.value
    assert isinstance(found, HubFile)
    assert found.url == versions.HF_URLS[source]


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_what_aikit_gave_as_arguments_is_in_the_environment(debug: bool, config: bool) -> None:
    text = with_models(f"debug: {str(debug).lower()}\n" + ("config: |\n  - name: m\n" if config else ""))
    planned, _ = plan.make(pinned(parse_text(text)), plan.Options())
    assert (planned.entrypoint, planned.cmd) == ((), ())
    assert planned.env == ({"DEBUG": "true"} if debug else {}) | ({"CONFIG_FILE": "/config.yaml"} if config else {})
    assert "arguments" in DOCUMENTED


@pytest.mark.usefixtures("nix")
def test_the_environment_is_aikits_for_each_runtime() -> None:
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", ROOT / "nix/runtimes.nix"], capture_output=True, check=True
    )
    ours = {runtime: said["env"] for runtime, said in json.loads(done.stdout).items()}
    assert ours["avx"] == ours["avx2"] == ours["avx512"] == {}
    aikit = {  # v0.9.0 to v0.21.0, without the second PATH
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.0",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "BUILD_TYPE": "cublas",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
    }
    assert {name for name in ours["cuda"] | aikit if ours["cuda"].get(name) != aikit.get(name)} == {"LD_LIBRARY_PATH"}
    assert "environment" in DOCUMENTED
