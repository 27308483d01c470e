"""LocalAI's model configs in llama-server's words."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from aikit_nix import llama_server
from aikit_nix.errors import AikitError
from aikit_nix.parser import parse

SHA256 = "0" * 64
BASE = ("--host", "0.0.0.0", "--port", "8080", "--offline")


def translate(config: str | None, *files: str, debug: bool = False) -> llama_server.Served:
    lines = ["apiVersion: v1alpha1", f"debug: {str(debug).lower()}", "models:"]
    for file in files:
        lines += [f"  - name: {file.removesuffix('.gguf')}", f"    source: https://example.com/{file}"]
        lines += [f'    sha256: "{SHA256}"']
    if config is not None:
        lines += ["config: |", textwrap.indent(textwrap.dedent(config), "  ")]
    aikitfile, _ = parse("\n".join(lines).encode(), "aikitfile.yaml")
    return llama_server.translate(aikitfile)


def options(served: llama_server.Served) -> dict[str, str]:
    """The arguments behind the common ones, as pairs."""
    rest = served.args[len(BASE) :]
    return dict(zip(rest[::2], rest[1::2], strict=True))


def test_without_a_config_a_model_is_served_under_its_name() -> None:
    served = translate(None, "tiny.gguf")
    assert served.args == (*BASE, "--alias", "tiny", "--model", "/models/tiny.gguf")
    assert served.presets == ""


def test_a_config_becomes_options() -> None:
    served = translate(
        """
        - name: chat
          backend: llama
          context_size: 4096
          threads: 2
          f16: true
          mmap: true
          mmproj: eye.gguf
          parameters:
            model: tiny.gguf
            temperature: 0.2
            top_k: 80
            top_p: 0.7
            max_tokens: 100
        """,
        "tiny.gguf",
        "eye.gguf",
    )
    assert options(served) == {
        "--alias": "chat",
        "--model": "/models/tiny.gguf",
        "--ctx-size": "4096",
        "--threads": "2",
        "--mmproj": "/models/eye.gguf",
        "--temp": "0.2",
        "--top-k": "80",
        "--top-p": "0.7",
        "--predict": "100",
    }
    assert served.warnings == ()


def test_flags_and_debug_have_no_value() -> None:
    config = "- {name: e, embeddings: true, reranking: false, parameters: {model: tiny.gguf, ignore_eos: true}}"
    served = translate(config, "tiny.gguf", debug=True)
    assert served.args == (
        *BASE,
        "--verbose",
        "--alias",
        "e",
        "--model",
        "/models/tiny.gguf",
        "--embeddings",
        "--ignore-eos",
    )


def test_several_models_become_presets() -> None:
    served = translate(
        """
        - name: one
          embeddings: true
          parameters: {model: a.gguf}
        - name: two
          chat_template_kwargs: {thinking: false}
          parameters: {model: b.gguf, seed: 7}
        """,
        "a.gguf",
        "b.gguf",
    )
    assert served.args == (*BASE, "--models-preset", "/models.ini")
    assert served.presets == (
        "[one]\nmodel = /models/a.gguf\nembeddings = true\n\n"
        '[two]\nmodel = /models/b.gguf\nchat-template-kwargs = {"thinking": false}\nseed = 7\n'
    )


def test_models_to_load_at_start_are_marked() -> None:
    text = f"""
apiVersion: v1alpha1
loadToMemory: [b]
models:
  - {{name: a, source: "https://example.com/a.gguf", sha256: "{SHA256}"}}
  - {{name: b, source: "https://example.com/b.gguf", sha256: "{SHA256}"}}
"""
    served = llama_server.translate(parse(text.encode(), "aikitfile.yaml")[0])
    assert served.presets == ("[a]\nmodel = /models/a.gguf\n\n[b]\nmodel = /models/b.gguf\nload-on-startup = true\n")


def test_later_shards_are_not_models_of_their_own() -> None:
    served = translate(None, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    assert options(served)["--model"] == "/models/big-00001-of-00002.gguf"


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("template: {chat_message: t}", "template"),
        ("system_prompt: be nice", "system_prompt"),
        ("stopwords: [x]", "stopwords"),
        ("mmap: false", "mmap"),
        ("never_heard_of: 1", "never_heard_of"),
        ("parameters: {model: tiny.gguf, tfz: 1}", "parameters.tfz"),
    ],
)
def test_a_setting_without_counterpart_is_named(setting: str, key: str) -> None:
    parameters = "" if "parameters" in setting else "parameters: {model: tiny.gguf}, "
    (warning,) = translate(f"- {{name: c, {parameters}{setting}}}", "tiny.gguf").warnings
    assert f"config c: {key} is left out" in str(warning)
    assert str(warning).startswith("warning: aikitfile.yaml:7:")


def test_the_tokenizers_own_template_is_what_llama_server_uses() -> None:
    config = "- {name: c, template: {use_tokenizer_template: true}, parameters: {model: tiny.gguf}}"
    assert translate(config, "tiny.gguf").warnings == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("just text", "must be a list"),
        ("- [1]", "must be a list"),
        ("- {name: 1, parameters: {model: tiny.gguf}}", "`name`"),
        ("- {name: c, parameters: [1]}", "`parameters`"),
        ("- {name: c, parameters: {model: other.gguf}}", "there are: tiny.gguf"),
        ("- {name: c, parameters: {}}", "names None"),
        ("- {name: c, backend: stablediffusion, parameters: {model: tiny.gguf}}", "--engine localai"),
        ("- {name: c, mmproj: ../x, parameters: {model: tiny.gguf}}", "no model file"),
        ("- {name: c, context_size: [1], parameters: {model: tiny.gguf}}", "context_size must be a number"),
        ("- {name: c, embeddings: 3, parameters: {model: tiny.gguf}}", "embeddings must be true or false"),
        (
            "- {name: c, parameters: {model: tiny.gguf}}\n- {name: 'a]b', parameters: {model: tiny.gguf}}",
            "cannot name a preset",
        ),
        (
            '- {name: c, parameters: {model: tiny.gguf}}\n- {name: d, grammar: "a\\nb", parameters: {model: tiny.gguf}}',
            "line breaks",
        ),
    ],
)
def test_what_cannot_be_served_is_an_error(config: str, message: str) -> None:
    with pytest.raises(AikitError) as raised:
        translate(config, "tiny.gguf")
    assert message in str(raised.value)
    assert str(raised.value).startswith("error: aikitfile.yaml:")


def test_the_documentation_lists_what_is_translated() -> None:
    text = (Path(__file__).parents[1] / "docs/llama-server.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `--([a-z-]+)` \|$", text, re.MULTILINE))
    tables = {**llama_server.SETTINGS, **llama_server.FILES}
    tables |= {f"parameters.{key}": option for key, option in llama_server.PARAMETERS.items()}
    assert listed == {**tables, "parameters.model": "model"}
