"""The keys that a model's config has, out of LocalAI's source: `localai_keys.py TREE` writes them; update_pins.py does, too.

    {"keys": {KEY: TYPE}, "options": [NAME]}

KEY has dots (`parameters.top_k`), TYPE is Go's, of a named type what it is made of (`struct`) where it reads no YAML of its
own. The options are those of its llama-cpp, which have no types in its source.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = Path("generator/aikit_nix/aikitfile/localai_keys.json")

_STRUCTS = (
    ("core/config/model_config.go", "ModelConfig", ""),
    ("core/config/model_config.go", "LLMConfig", ""),
    ("core/config/model_config.go", "TemplateConfig", "template."),
    ("core/schema/request.go", "BasicModelRequest", "parameters."),
    ("core/schema/prediction.go", "PredictionOptions", "parameters."),
    ("pkg/functions/parse.go", "FunctionsConfig", "function."),
    ("pkg/functions/parse.go", "GrammarConfig", "function.grammar."),
    ("pkg/reasoning/config.go", "Config", "reasoning."),
)
_PACKAGES = ("core/config", "core/schema", "pkg/functions", "pkg/reasoning")
_LLAMA = "backend/cpp/llama-cpp/grpc-server.cpp"


def table(source: Path) -> str:
    """The file's text for a tree of LocalAI. Raises ValueError where that has another layout."""
    missing = [name for name in (*(file for file, _, _ in _STRUCTS), _LLAMA) if not (source / name).is_file()]
    if missing:
        raise ValueError(f"has no {missing[0]}")
    types = "\n".join(file.read_text() for package in _PACKAGES for file in sorted((source / package).glob("*.go")))
    keys = {
        prefix + key: _made_of(kind, types)
        for file, struct, prefix in _STRUCTS
        for key, kind in _fields(source, file, struct)
    }
    options = sorted(set(re.findall(r'strcmp\(optname, "([a-z0-9_]+)"\)', (source / _LLAMA).read_text())))
    if not options:
        raise ValueError(f"reads no options in {_LLAMA}")
    return json.dumps({"keys": dict(sorted(keys.items())), "options": options}, indent=1) + "\n"


def _fields(source: Path, file: str, struct: str) -> Iterator[tuple[str, str]]:
    """The YAML keys of a Go structure, with their types."""
    text = (source / file).read_text()
    found = re.search(rf"^type {struct} struct \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"has no structure {struct} in {file}")
    for declared, key in re.findall(r"^([^`\n]+)`[^`\n]*yaml:\"([a-z0-9_]+)[,\"]", found[1], re.MULTILINE):
        yield key, declared.split()[-1].lstrip("*")


def _made_of(kind: str, types: str) -> str:
    name = kind.rpartition(".")[2]
    found = re.search(rf"^type {re.escape(name)} (struct|map\S+)", types, re.MULTILINE)
    reads = re.search(rf"^func \(\w+ \*?{re.escape(name)}\) Unmarshal", types, re.MULTILINE)
    return found[1] if found and not reads else kind


if __name__ == "__main__":
    (ROOT / FILE).write_text(table(Path(sys.argv[1])))
