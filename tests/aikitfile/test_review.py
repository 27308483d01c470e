"""What a valid aikitfile most likely gets wrong: names that nothing answers to, templates that nothing uses."""

from __future__ import annotations

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import Diagnostic, Severity

HEAD = "apiVersion: v1alpha1\n"
MODEL = "models:\n  - name: m\n    source: m.gguf\n"
TEMPLATE = "    promptTemplates: [{name: t, template: x}]\n"
CONFIG = "config: |\n  - name: x\n"


def review(text: str) -> list[Diagnostic]:
    """What is warned of in a valid aikitfile, which is read as every command reads it."""
    return [finding for finding in parse(text.encode(), "f")[1] if finding.severity is Severity.WARNING]


@pytest.mark.parametrize(
    ("more", "place", "says"),
    [
        ("config: |\n  - name: m\n    backend: vllm\n", "7:14", "the image has no backend `vllm`"),
        ("config: |\n  - name: m\n    backend: exllama\n", "7:14", "is not installed: list `exllama2` under backends"),
        ("config: |\n  - name: m\n    backend: lama-cpp\n", "7:14", "did you mean `llama-cpp`?"),
        ("config: |\n  - backend: stablediffusion\n", "6:14", "is not installed: list `stablediffusion` under backends"),
        ("config: |\n  - name: m\n    template:\n      chat: nix\n", "8:13", "no template is called"),
        ("loadToMemory: [mm]\n", "5:16", "did you mean `m`?"),
        ("config: |\n  - parameters:\n      model: https://h/x\n", "7:14", "would be downloaded"),
        ("config: |\n  - parameters:\n      model: n.gguf\n", "7:14", "no model lands on /models/n.gguf; did you mean `m.gguf`?"),
        ("config: |\n  - mmproj: n.gguf\n", "6:13", "no model lands on /models/n.gguf"),
        ("config: |\n  - template:\n      chat: |\n        {{if}\n", "8:11", "not a Go template"),
        ('config: |\n  - template:\n      chat: |\n        {{if eq .R \\"a\\"}}a{{end}}{{"b}}\n', "8:37", "does not end"),
        (TEMPLATE, "5:30", "nothing uses the template `t`: there is no config that names it"),
        (TEMPLATE + CONFIG, "5:30", "nothing uses the template `t`: no entry of the config names it"),
        (TEMPLATE.replace("x}", "'{{'}").replace(" t,", " m.gguf,"), "5:48", "not a Go template"),
    ],
)  # fmt: skip
def test_what_is_warned_of_and_where(more: str, place: str, says: str) -> None:
    (found,) = review(HEAD + MODEL + more)
    assert (str(found.at), says in found.message) == (f"f:{place}", True), found


@pytest.mark.parametrize(
    "more",
    [
        TEMPLATE.replace(" t,", " m.gguf,"),  # LocalAI's own name for it
        TEMPLATE + "config: |\n  - template: {chat: ./t}\n",
        "config: |\n  - backend: llama-cpp\n    parameters: {model: m.gguf}\n",
        "config: |\n  - parameters: {model: /models/m.gguf}\n    name: other\nloadToMemory: [m, other]\n",
        "backends: [stablediffusion]\nconfig: |\n  - backend: stablediffusion-ggml\n",
        "config: |\n  - template: {chat: 'User: {{.Input}}'}\n",
        "config: |\n  - template: {chat: '{% if x %}{{ unlike Go'}\n",  # Jinja
    ],
)
def test_what_is_right_is_left_in_peace(more: str) -> None:
    assert review(HEAD + MODEL + more) == []


def test_a_folders_model_may_be_named_by_its_folder() -> None:
    text = HEAD + "models:\n  - {name: a/b, source: https://h.example/m.gguf}\n"
    assert review(text + "config: |\n  - parameters: {model: a}\n  - parameters: {model: a/m.gguf}\n") == []


def test_a_broken_template_is_told_three_times_at_most() -> None:
    assert len(review(HEAD + MODEL + "config: |\n  - template: {chat: '" + "{{x " * 50 + "'}\n")) <= 3
