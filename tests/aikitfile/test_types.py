"""What an aikitfile says, once it was read."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Aikitfile, Located, Model, Pin, PromptTemplate
from aikit_nix.base.errors import Position

AT = Position("f", 1, 1)
PIN = Pin("1" * 64)


def read(text: str) -> Aikitfile:
    return parse(text.encode(), "f")[0]


def model(source: str) -> Model:
    return read(f"apiVersion: v1alpha1\nmodels: [{{name: m, source: '{source}'}}]\n").models[0]


def test_a_template_lands_below_models() -> None:
    for name, path in (("chat", "/models/chat.tmpl"), ("a/./b//c", "/models/a/b/c.tmpl")):
        assert PromptTemplate(Located(name, AT), Located("x", AT)).path == path


@pytest.mark.parametrize(
    ("source", "several", "local"),
    [
        ("m.gguf", False, True),
        ("folder", False, True),
        ("https://h.example/m.gguf", False, False),
        ("hf://ns/repo", True, False),
        ("hf://ns/repo/m.gguf", False, False),
        ("oci://registry.example/m:1", True, False),
        ("oci://registry.ollama.ai/library/m:1", False, False),
    ],
)
def test_a_model_knows_whether_it_is_several_files_and_whether_they_are_here(
    source: str, several: bool, local: bool
) -> None:
    found = model(source)
    assert (found.is_several, found.is_local) == (several, local)
    assert not replace(found, pin=PIN).is_several  # by then it is one file


def test_a_hash_alone_is_no_lock() -> None:
    found = model("hf://ns/repo/m.gguf")
    assert not found.is_locked
    assert not replace(found, pin=PIN).is_locked
    assert replace(found, pin=replace(PIN, size=0)).is_locked


def test_the_digest_is_of_the_files_bytes() -> None:
    texts = ["apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n"]
    texts += ["\ufeff" + texts[0], texts[0].replace("\n", "\r\n")]
    digests = [read(text).digest for text in texts]
    assert digests == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert len(set(digests)) == 3
