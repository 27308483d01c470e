"""The keys are LocalAI's: those of its own source, where LOCALAI_SRC names a tree of LocalAI v4.9.0."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.aikitfile.localai_keys import KINDS, Kind
from aikit_nix.engines.llama_server import settings

_CONFIG = "core/config/model_config.go"
STRUCTS = (
    (_CONFIG, "ModelConfig", ""),
    (_CONFIG, "LLMConfig", ""),
    (_CONFIG, "TemplateConfig", "template."),
    ("core/schema/prediction.go", "PredictionOptions", "parameters."),
    ("pkg/functions/parse.go", "FunctionsConfig", "function."),
    ("pkg/functions/parse.go", "GrammarConfig", "function.grammar."),
    ("pkg/reasoning/config.go", "Config", "reasoning."),
)
TYPES = {
    "int": Kind.INTEGER,
    "int32": Kind.INTEGER,
    "float32": Kind.NUMBER,
    "float64": Kind.NUMBER,
    "bool": Kind.BOOLEAN,
    "string": Kind.TEXT,
    "[]string": Kind.TEXTS,
    "[]float32": Kind.NUMBERS,
    "map[string]string": Kind.TEXT_MAP,
    "map[string]float64": Kind.NUMBER_MAP,
}


@pytest.fixture(scope="module")
def source() -> Path:
    if not (named := os.environ.get("LOCALAI_SRC")):
        pytest.skip("LOCALAI_SRC names no tree of LocalAI v4.9.0")
    return Path(named)


def fields(source: Path) -> Iterator[tuple[str, str]]:
    """The keys of LocalAI's structures with their Go types."""
    for file, struct, prefix in STRUCTS:
        text = (source / file).read_text()
        (body,) = re.findall(rf"^type {struct} struct \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
        for kind, key in re.findall(r"^\s*\w*\s*(\S+)\s+`[^`\n]*yaml:\"([a-z0-9_]+)[,\"]", body, re.MULTILINE):
            yield prefix + key, kind.lstrip("*")


def test_each_key_of_localais_config_has_a_row_and_its_type(source: Path) -> None:
    found = dict(fields(source))
    assert len(found) > 140
    assert [key for key in found if settings.find(key) is None] == ["parameters", "template", "function", "reasoning"]
    wrong = {
        key: (kind, KINDS[key])
        for key, kind in found.items()
        if key in KINDS and kind in TYPES and KINDS[key] is not TYPES[kind]
    }
    assert wrong == {}


def test_there_is_no_row_for_a_key_that_localai_has_not(source: Path) -> None:
    ours = {key for key in {*KINDS, *settings.SETTINGS} if not key.startswith("options.")}
    assert ours - {key for key, _ in fields(source)} == {"parameters.model"}


def test_the_options_are_those_of_its_llama_cpp(source: Path) -> None:
    text = (source / "backend/cpp/llama-cpp/grpc-server.cpp").read_text()
    theirs = set(re.findall(r'strcmp\(optname, "([a-z0-9_]+)"\)', text))
    ours = {key.removeprefix("options.") for key in settings.SETTINGS if key.startswith("options.")}
    assert (ours, len(theirs) > 100) == (theirs, True)
