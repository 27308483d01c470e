"""LocalAI's own gallery: each entry is read by both engines, or refused with its reason. Where LOCALAI_SRC names a tree."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.aikitfile import goyaml, parser, yamltree
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import localai
from aikit_nix.engines.llama_server import launch

DOCS = (Path(__file__).parents[1] / "docs/llama-server.md").read_text()


def load(text: str) -> Any:
    root, _ = yamltree.compose(text, "gallery")
    return goyaml.as_json(root, 1 << 40) if root else {}


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: over(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return below | above | both


def config(source: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """The config that LocalAI writes when it installs the entry."""
    named = source / "gallery" / (entry.get("url") or "").rpartition("/gallery/")[2].partition("@")[0]
    base = entry.get("config_file") or (load(named.read_text()).get("config_file") if named.is_file() else {}) or {}
    return over(load(base) if isinstance(base, str) else base, entry.get("overrides") or {}) | {"name": entry["name"]}


def test_every_entry_is_read_or_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (named := os.environ.get("LOCALAI_SRC")):
        pytest.skip("LOCALAI_SRC names no tree of LocalAI")
    monkeypatch.setattr(yamltree, "MAX_VALUES", 1 << 40)
    entries = load((Path(named) / "gallery/index.yaml").read_text())
    counted: Counter[str] = Counter()
    for entry in entries:
        files = [file["filename"] for file in entry.get("files") or []] or ["m.gguf"]
        models = [
            {
                "name": f"{file.rpartition('/')[0]}/m".strip("/"),
                "source": f"https://h/{Path(file).name}",
                "sha256": "0" * 64,
            }
            for file in files
        ]
        text = {"apiVersion": "v1alpha1", "models": models, "config": json.dumps([config(Path(named), entry)])}
        aikitfile, _ = parser.parse(json.dumps(text).encode(), "aikitfile.yaml")
        localai.launch(aikitfile, {})
        try:
            launch.launch(aikitfile, {})
            counted["served"] += 1
        except AikitError:
            try:
                launch.launch(aikitfile, {}, drop=True)
                counted["served with --drop-settings"] += 1
            except AikitError as problem:
                counted["backend" if "has no backend" in str(problem) else "other"] += 1
    said = re.search(r"([\d,]+) entries.*?serves (\d+).*?(\d+) more.*?refuses (\d+), (\d+) of them", DOCS, re.DOTALL)
    assert said
    total, served, more, refused, backend = (int(number.replace(",", "")) for number in said.groups())
    assert (total, served, more) == (len(entries), counted["served"], counted["served with --drop-settings"])
    assert (refused, backend) == (counted["backend"] + counted["other"], counted["backend"])
