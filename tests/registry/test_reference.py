"""Names of images, as docker, podman and skopeo take them."""

from __future__ import annotations

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.registry import reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ghcr.io/me/llama:1", "ghcr.io/me/llama:1"),
        ("docker://ghcr.io/me/llama:1", "ghcr.io/me/llama:1"),
        ("oci://ghcr.io/me/llama", "ghcr.io/me/llama:latest"),
        (f"ghcr.io/me/llama@{DIGEST}", f"ghcr.io/me/llama@{DIGEST}"),
        (f"ghcr.io/me/llama:1@{DIGEST}", f"ghcr.io/me/llama@{DIGEST}"),
        ("me/llama", "docker.io/me/llama:latest"),  # no host: Docker Hub
        ("localhost/llama", "localhost/llama:latest"),
        ("registry:5000/llama", "registry:5000/llama:latest"),  # the port is no tag
        ("[::1]:5000/a/llama:1", "[::1]:5000/a/llama:1"),
    ],
)
def test_a_name_means_what_it_means_to_docker(text: str, name: str) -> None:
    assert reference.parse(text).name == name


def test_a_name_without_a_tag_gets_the_one_that_is_asked_for() -> None:
    assert reference.parse("ghcr.io/me/llama", tag="avx2").reference == "avx2"
    assert reference.parse("ghcr.io/me/llama:1", tag="avx2").reference == "1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama", "names no registry"),
        ("llama:1", "names no registry"),
        ("", "names no registry"),
        ("ghcr.io/Me/llama:1", "names no repository"),
        ("ghcr.io/me/../llama:1", "names no repository"),
        ("ghcr.io/me/llama:1?x=/../..", "a tag that no registry takes"),
        ("ghcr.io/me/llama:", "a tag that no registry takes"),
        ("ghcr.io/me/llama@sha256:0", "a digest that is not sha256"),
        ("ghcr.io:port/me/llama", "names no registry"),
        ("ghcr.io\r\nHost: evil/me/llama", "names no registry"),
    ],
)
def test_what_is_no_name_is_refused(text: str, said: str) -> None:
    with pytest.raises(AikitError, match=said) as raised:
        reference.parse(text)
    assert str(raised.value).isprintable()


def test_a_password_is_neither_taken_nor_shown() -> None:
    with pytest.raises(AikitError, match="use `docker login`") as raised:
        reference.parse("docker://me:secret-word@ghcr.io/me/llama:1")
    assert "secret-word" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ollama://llama3.2:1b", "oci://registry.ollama.ai/library/llama3.2:1b"),
        ("ollama://smollm2", "oci://registry.ollama.ai/library/smollm2:latest"),
        ("ollama://me/mine:q4", "oci://registry.ollama.ai/me/mine:q4"),
    ],
)
def test_ollamas_names_are_addresses_of_its_registry(text: str, address: str) -> None:
    assert reference.of_ollama(text) == address
