"""A `source:` as it is written: which kind it is, and where its files land."""

from __future__ import annotations

import pytest

from aikit_nix import sources
from aikit_nix.sources import HubFile, HubRepository, Local, Reference, RefusedError, Web

HUB = "huggingface.co/ns/repo"


@pytest.mark.parametrize(
    ("text", "kind", "name", "path", "several"),
    [
        ("m.gguf", Local, "a/m", "/models/m.gguf", False),
        ("sub/folder", Local, "m", "/models/folder", False),
        ("https://h.example/x/m.gguf", Web, "m", "/models/m.gguf", False),
        ("HTTP://h.example/m.gguf", Web, "a/b/m", "/models/a/b/m.gguf", False),
        ("https://huggingface.co/datasets/ns/repo/resolve/main/m.gguf", Web, "m", "/models/m.gguf", False),
        (f"https://{HUB}/resolve/main/d/m.gguf", HubFile, "a/m", "/models/a/m.gguf", False),
        ("huggingface://ns/repo/m.gguf", HubFile, "a/m", "/models/m.gguf", False),
        ("hf://ns/repo", HubRepository, "m", "/models/ns/repo", True),
        ("oci://registry.ollama.ai/library/llama3.2:1b", Reference, "a/m", "/models/llama3.2", False),
        ("oci://ghcr.io/ns/m:1", Reference, "m", "/models/m", True),
    ],
)
def test_a_source_is_of_a_kind_and_lands_where_aikit_put_it(
    text: str, kind: type, name: str, path: str, several: bool
) -> None:
    source = sources.read(text)
    assert type(source) is kind
    assert source.text == text
    assert sources.destination(source, name) == path
    assert sources.several(source) is several


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("m\x1b[2J.gguf", r"U\+001B"),
        ("m\ud800.gguf", r"U\+D800"),
        ("file:///etc/passwd", "file: URL"),
        ("ftp://h.example/m", "the scheme `ftp://`"),
        ("git+ssh://h.example/m", r"the scheme `git\+ssh://`"),
        ("javascript:alert(1)", "the scheme"),
    ],
)
def test_what_is_no_source_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        sources.read(text)
