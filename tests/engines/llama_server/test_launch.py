"""Arguments for one model, presets for several."""

from __future__ import annotations

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.engines.llama_server import launch as llama_server
from engines.llama_server.test_translation import BASE, SHA256, launch


def test_without_a_config_a_model_is_served_under_its_name() -> None:
    served = launch(None, "tiny.gguf")
    assert served.entrypoint == (*BASE, "--alias", "tiny", "--model", "/models/tiny.gguf")
    assert (served.cmd, served.files) == ((), {})


def test_flags_and_debug_have_no_value() -> None:
    config = "- {name: e, embeddings: true, reranking: false, parameters: {model: tiny.gguf, ignore_eos: true}}"
    served = launch(config, "tiny.gguf", debug=True)
    assert served.entrypoint == (
        *BASE,
        "--verbose",
        "--alias",
        "e",
        "--model",
        "/models/tiny.gguf",
        "--embeddings",
        "--ignore-eos",
        "--batch-size",
        "4096",
        "--ubatch-size",
        "4096",
    )


def test_several_models_become_presets() -> None:
    served = launch(
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
    assert served.entrypoint == (*BASE, "--models-preset", "/models.ini")
    assert served.files["/models.ini"] == (
        "[one]\nmodel = /models/a.gguf\nembeddings = true\nbatch-size = 4096\nubatch-size = 4096\n\n"
        '[two]\nmodel = /models/b.gguf\nseed = 7\nchat-template-kwargs = {"thinking": false}\n'
    )


def test_models_to_load_at_start_are_marked() -> None:
    text = f"""
apiVersion: v1alpha1
loadToMemory: [b]
models:
  - {{name: a, source: "https://example.com/a.gguf", sha256: "{SHA256}"}}
  - {{name: b, source: "https://example.com/b.gguf", sha256: "{SHA256}"}}
"""
    served = llama_server.launch(parse(text.encode(), "aikitfile.yaml")[0], {})
    assert served.files["/models.ini"] == (
        "[a]\nmodel = /models/a.gguf\n\n[b]\nmodel = /models/b.gguf\nload-on-startup = true\n"
    )


def test_a_file_name_that_begins_a_comment_in_presets_is_refused() -> None:
    with pytest.raises(AikitError, match=r"the model `/models/a#b.gguf` cannot be a setting"):
        launch(None, "a%23b.gguf", "tiny.gguf")
