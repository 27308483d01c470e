"""The keys of an aikitfile and what each means: for messages, and the JSON Schema that editors read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aikit_nix.aikitfile.types import Backend, Runtime

TOP = {
    "apiVersion": "Version of this format. The only one is v1alpha1.",
    "debug": "Whether the server prints debug logs.",
    "runtime": "What the engine is compiled for: an instruction set, or cuda (NVIDIA), rocm (AMD), vulkan (any GPU); default avx.",
    "backends": "Inference backends besides llama-cpp, which is always there.",
    "models": "The models in the image, a file each.",
    "config": "The text of /config.yaml: LocalAI's list of model configurations.",
    "loadToMemory": "Names of the models that the server loads when it starts (AIKit after v0.21).",
}
MODEL = {
    "name": "Name of the model. One with a slash puts the file of a URL into a folder below /models.",
    "source": "An http(s) URL, huggingface://NAMESPACE/REPO[/BRANCH]/FILE, oci://REGISTRY/REPOSITORY:TAG, or a file or folder beside the aikitfile.",
    "sha256": "SHA-256 of the model's file, 64 lower-case hex digits. What has none is pinned by `aikit-nix lock`.",
    "promptTemplates": "Prompt templates; each becomes /models/NAME.tmpl.",
}
TEMPLATE = {
    "name": "Name of the template, as the config calls it.",
    "template": "The template: Go's text/template, with LocalAI's fields.",
}

RUNTIMES = tuple(runtime.value for runtime in Runtime if runtime is not Runtime.CPU)
IMPLIED_BACKENDS = ("llama-cpp", "llama")
REFUSED_BACKENDS = {
    "mamba": "was dropped by AIKit v0.19 and by LocalAI: use a GGUF of the model, which needs no backend",
    "diffusers": "(Python, downloads what it needs at run time) has no pinned build here: use stablediffusion",
    "vllm": "(Python, downloads what it needs at run time) has no pinned build here: use a GGUF of the model",
}
REFUSED_RUNTIMES = {
    "applesilicon": "(a patched Vulkan driver in a virtual machine on a Mac) has no build here: leave `runtime` out for arm64",
    "cpu": "is not a word of the format: leave `runtime` out, or write avx, avx2 or avx512",
}


def as_json() -> str:
    """The JSON Schema (2020-12) as it is published in schema/."""
    import json

    return json.dumps(json_schema(), indent=2) + "\n"


def json_schema() -> dict[str, Any]:
    """What an editor can check: keys, types, words. `aikit-nix check` knows more."""
    text = {"type": ["string", "null"]}
    # YAML reads an unquoted `1` or `yes` as no string; AIKit takes both for their letters
    loose = {"type": ["string", "number", "boolean"]}
    template = {
        "type": "object",
        "description": "A prompt template.",
        "properties": _described(TEMPLATE, {"name": loose, "template": text}),
        "required": ["name", "template"],
        "additionalProperties": False,
    }
    model = {
        "type": "object",
        "description": "A model's file.",
        "properties": _described(
            MODEL,
            {
                "name": {**loose, "minLength": 1},
                "source": {"type": "string", "minLength": 1},
                "sha256": {"type": ["string", "null"], "pattern": "^([0-9a-f]{64})?$"},
                "promptTemplates": {"type": ["array", "null"], "items": template},
            },
        ),
        "required": ["name", "source"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aikitfile",
        "description": "What aikit-nix compiles into an OCI image: models, prompt templates and a server's config.",
        "type": "object",
        "properties": _described(
            TOP,
            {
                "apiVersion": {"const": "v1alpha1"},
                "debug": {"type": ["boolean", "null"], "default": False},
                "runtime": {"enum": [*RUNTIMES, "", None], "default": "avx"},
                "backends": {"type": ["array", "null"], "items": {"enum": [*Backend, *IMPLIED_BACKENDS]}},
                "models": {"type": "array", "items": model, "minItems": 1},
                "config": text,
                "loadToMemory": {
                    "type": ["array", "null"],
                    "items": {"type": "string", "minLength": 1},
                    "uniqueItems": True,
                },
            },
        ),
        "required": ["apiVersion", "models"],
        "additionalProperties": False,
    }


def _described(words: dict[str, str], properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {key: {"description": words[key], **rule} for key, rule in properties.items()}


_MANY = 300  # names to compare a word with: it takes time


def guess(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known word is close."""
    import difflib  # only where something is wrong

    words = [key for key in known if key]
    if len(words) > _MANY:
        return ""
    exact = [key for key in words if key.lower() == word.lower()]
    near = exact or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""
