"""The schema for editors, and the words of the format that messages use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from aikit_nix.aikitfile import schema
from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Backend, Runtime
from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"
FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_the_schema_is_the_published_one_and_takes_the_spec_pages_example() -> None:
    jsonschema = pytest.importorskip("jsonschema")

    published = FIXTURES.parents[1] / "schema/aikitfile.schema.json"
    done = aikit_nix("schema", cwd=published.parent)
    assert done.stdout == published.read_text()
    shown = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(shown)
    validator = jsonschema.Draft202012Validator(shown)
    validator.validate(yaml.safe_load((FIXTURES / "spec-example.yaml").read_text()))
    for wrong in ("runtime: avx9", "colour: red", "models: []", "models: [{name: m}]"):
        assert not validator.is_valid(yaml.safe_load(HEAD + wrong + ("" if "models" in wrong else "\n" + MODEL)))


def test_the_schema_and_the_parser_know_the_same_words() -> None:
    assert set(schema.RUNTIMES) == set(Runtime) - {Runtime.CPU}
    for runtime in schema.RUNTIMES:
        assert parse(f"{HEAD}{MODEL}runtime: {runtime}\n".encode(), "f")
    for backend in (*Backend, *schema.IMPLIED_BACKENDS):
        assert parse(f"{HEAD}{MODEL}backends: [{backend}]\n".encode(), "f")
    refused = {*schema.REFUSED_RUNTIMES, *schema.REFUSED_BACKENDS}
    assert not refused & {*schema.RUNTIMES, *Backend, *schema.IMPLIED_BACKENDS}


@pytest.mark.parametrize(
    ("word", "known", "guessed"),
    [
        ("CUDA", ["cuda", "avx"], "; did you mean `cuda`?"),
        ("rcom", ["cuda", "rocm"], "; did you mean `rocm`?"),
        ("x", ["cuda", "avx"], ""),
        ("", [""], ""),
        ("m300", [f"m{n}" for n in range(1000)], ""),  # comparing with all of them would take long
    ],
)
def test_a_word_is_guessed_where_one_is_near(word: str, known: list[str], guessed: str) -> None:
    assert schema.guess(word, known) == guessed
