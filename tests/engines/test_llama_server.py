"""LocalAI's model configs in llama-server's words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import Launch, chat_template, llama_server
from aikit_nix.sources.gguf import Facts

SHA256 = "0" * 64
BASE = ("--host", "0.0.0.0", "--port", "8080", "--offline")
UNKNOWN: Mapping[str, Facts] = {}


def header(chat_template: str | None = None, pooling: int | None = None) -> dict[str, Facts]:
    return {"/models/tiny.gguf": Facts(bool(chat_template), None, pooling)}


def launch(
    config: str | None,
    *files: str,
    debug: bool = False,
    templates: Mapping[str, str] | None = None,
    headers: Mapping[str, Facts] = UNKNOWN,
) -> Launch:
    lines = ["apiVersion: v1alpha1", f"debug: {str(debug).lower()}", "models:"]
    for file in files:
        lines += [f"  - name: {file.removesuffix('.gguf')}", f"    source: 'https://example.com/{file}'"]
        lines += [f'    sha256: "{SHA256}"']
    if templates:
        lines += ["    promptTemplates:"]
        for name, text in templates.items():
            lines += [f"      - name: {name}", "        template: |", textwrap.indent(text, " " * 10)]
    if config is not None:
        lines += ["config: |", textwrap.indent(textwrap.dedent(config), "  ")]
    aikitfile, _ = parse("\n".join(lines).encode(), "aikitfile.yaml")
    return llama_server.launch(aikitfile, headers)


def options(launch: Launch) -> dict[str, str]:
    """The arguments behind the common ones, as pairs."""
    rest = launch.entrypoint[len(BASE) :]
    return dict(zip(rest[::2], rest[1::2], strict=True))


def test_without_a_config_a_model_is_served_under_its_name() -> None:
    served = launch(None, "tiny.gguf")
    assert served.entrypoint == (*BASE, "--alias", "tiny", "--model", "/models/tiny.gguf")
    assert (served.cmd, served.files) == ((), {})


def test_a_config_becomes_options() -> None:
    served = launch(
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
    served = llama_server.launch(parse(text.encode(), "aikitfile.yaml")[0], {})
    assert served.files["/models.ini"] == (
        "[a]\nmodel = /models/a.gguf\n\n[b]\nmodel = /models/b.gguf\nload-on-startup = true\n"
    )


def test_later_shards_are_not_models_of_their_own() -> None:
    served = launch(None, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    assert options(served)["--model"] == "/models/big-00001-of-00002.gguf"


@pytest.mark.parametrize(
    ("setting", "key", "column"),
    [
        ("roles: {user: x}", "roles", 54),
        ("system_prompt: be nice", "system_prompt", 62),
        ("mmap: false", "mmap", 53),
        ("never_heard_of: 1", "never_heard_of", 63),
        ("parameters: {model: tiny.gguf, tfz: 1}", "parameters.tfz", 51),
    ],
)
def test_a_setting_without_counterpart_is_named(setting: str, key: str, column: int) -> None:
    parameters = "" if "parameters" in setting else "parameters: {model: tiny.gguf}, "
    (warning,) = launch(f"- {{name: c, {parameters}{setting}}}", "tiny.gguf").warnings
    assert f"config c: {key} is left out" in str(warning)
    assert str(warning).startswith(f"warning: aikitfile.yaml:8:{column}: ")


def test_the_tokenizers_own_template_is_what_llama_server_uses() -> None:
    config = "- {name: c, template: {use_tokenizer_template: true, chat: t}, parameters: {model: tiny.gguf}}"
    served = launch(config, "tiny.gguf", templates={"t": "{{.Input}}"}, headers=header("{{ x }}"))
    assert (served.warnings, served.files) == ((), {})


def test_templates_become_one_jinja_template_of_the_image() -> None:
    config = """
        - name: my chat
          template: {chat: t, chat_message: m, join_chat_messages_by_character: ""}
          system_prompt: S
          roles: {user: "U:"}
          parameters: {model: tiny.gguf}
        """
    templates = {"t": "{{.SystemPrompt}}{{.Input}}A:", "m": "{{.Role}}{{.Content}}"}
    served = launch(config, "tiny.gguf", templates=templates)
    assert served.warnings == ()
    assert served.entrypoint[-3:] == ("--jinja", "--chat-template-file", "/models/my-chat.jinja")
    prompt = chat_template.Prompt(
        "{{.SystemPrompt}}{{.Input}}A:\n", "{{.Role}}{{.Content}}\n", None, {"user": "U:"}, "S", ""
    )
    assert served.files == {"/models/my-chat.jinja": chat_template.translate(prompt)}


def test_a_template_of_the_models_name_is_its_prompt() -> None:
    served = launch(None, "tiny.gguf", templates={"tiny.gguf": "{{.Input}}!"})
    assert served.files == {"/models/tiny.jinja": chat_template.translate(chat_template.Prompt(chat="{{.Input}}!"))}


@pytest.mark.parametrize(
    ("template", "named"), [("{{.Metadata}}", "the field .Metadata"), ("{{if}", "because of broken syntax (")]
)
def test_a_template_that_cannot_be_kept_is_named_and_the_ggufs_own_used(template: str, named: str) -> None:
    config = "- name: c\n  template:\n    chat: t\n  parameters: {model: tiny.gguf}"
    served = launch(config, "tiny.gguf", templates={"t": template})
    (warning,) = served.warnings
    assert named in str(warning)
    assert re.match(
        r"warning: aikitfile.yaml:\d+:13: config c: the chat template inside the GGUF is used", str(warning)
    )
    assert served.files == {}


def test_a_template_that_is_not_there_is_named() -> None:
    config = "- {name: c, template: {chat: nix}, parameters: {model: tiny.gguf}}"
    (warning,) = launch(config, "tiny.gguf").warnings
    assert "the template `nix`, which is not there" in str(warning)


@pytest.mark.parametrize("config", [None, "- {name: tiny, template: {completion: t}, parameters: {model: tiny.gguf}}"])
def test_a_base_model_gets_the_texts_of_the_messages(config: str | None) -> None:
    served = launch(config, "tiny.gguf", headers=header())
    assert served.files == {"/models/tiny.jinja": chat_template.translate(llama_server.BASE)}
    for other in (UNKNOWN, header("{{ x }}")):
        assert launch(config, "tiny.gguf", headers=other).files == {}


@pytest.mark.parametrize(
    ("headers", "pooling"), [(header(), ("--pooling", "mean")), (header(pooling=2), ()), (UNKNOWN, ())]
)
def test_embeddings_need_a_pooling(headers: Mapping[str, Facts], pooling: tuple[str, ...]) -> None:
    config = "- {name: e, embeddings: true, parameters: {model: tiny.gguf}}"
    assert launch(config, "tiny.gguf", headers=headers).entrypoint[len(BASE) + 4 :] == ("--embeddings", *pooling)


def test_stopwords_stop_each_request() -> None:
    config = "- {name: c, stopwords: [a, 'b;c'], parameters: {model: tiny.gguf}}"
    assert launch(config, "tiny.gguf").entrypoint[-4:] == ("--reverse-prompt", "a", "--reverse-prompt", "b;c")


def test_a_preset_holds_one_stopword() -> None:
    other = "\n- {name: d, parameters: {model: tiny.gguf}}"
    served = launch("- {name: c, stopwords: ['#', a, b], parameters: {model: tiny.gguf}}" + other, "tiny.gguf")
    assert "reverse-prompt = a\n" in served.files["/models.ini"]
    (warning,) = served.warnings
    assert "stopwords is left out: a preset of several models holds one" in str(warning)


def test_numbers_become_what_llama_server_reads() -> None:
    config = "- {name: c, threads: 0x10, flash_attention: true, parameters: {model: tiny.gguf, temperature: 1_0.5, seed: 4294967295}}"
    got = options(launch(config, "tiny.gguf"))
    assert (got["--threads"], got["--temp"], got["--seed"], got["--flash-attn"]) == ("16", "10.5", "4294967295", "on")


ONE = "{model: tiny.gguf}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("just text", "7:9: the config is not a list"),
        ("- [1]", "8:5: the config is not a list"),
        ("- {parameters: {model: tiny.gguf}}", "8:5: each config needs a `name`"),
        ("- {name: c, parameters: [1]}", "8:27: config: parameters must be a map"),
        ("- {name: c, parameters: {model: other.gguf}}", "8:35: config c: parameters.model names `other.gguf`, which is no model file here (there are: tiny.gguf)"),
        ("- {name: c, parameters: {}}", "8:5: config c: parameters.model names no model file"),
        (f"- {{name: c, backend: stablediffusion, parameters: {ONE}}}", "8:24: config c: llama-server has no backend"),
        (f"- {{name: c, mmproj: x, parameters: {ONE}}}", "8:23: config c: mmproj names `x`, which is no model file"),
        (f"- {{name: a, parameters: {ONE}}}\n- {{name: c, context_size: [1, 2], parameters: {ONE}}}", "9:29: config: context_size must be a whole number"),
        (f"- {{name: c, embeddings: 3, parameters: {ONE}}}", "8:27: config: embeddings must be true or false"),
        (f"- {{name: c, threads: 9999999999, parameters: {ONE}}}", "8:24: config: threads is too large"),
        (f"- {{name: 'a,b', parameters: {ONE}}}", "8:5: config a,b: llama-server takes a comma for two names"),
        (f"- {{name: c, grammar: {'x' * 100_001}, parameters: {ONE}}}", "8:24: config: grammar is more than 100000 characters"),
        (f"- {{name: c, parameters: {ONE}}}\n- {{name: c, parameters: {ONE}}}", "9:5: config c: there is a model of that name already"),
        *((f"- {{name: c, parameters: {ONE}}}\n- {{name: '{name}', parameters: {ONE}}}", "9:5: config ") for name in ("a]b", "a#b", "a;b", "*", "a:b", " a", "a ")),
        (f'- {{name: c, parameters: {ONE}}}\n- {{name: d, grammar: "a\\nb", parameters: {ONE}}}', "9:5: config d: the grammar `a\\nb` cannot be"),
        (f"- {{name: c, parameters: {ONE}}}\n- {{name: d, grammar: 'a ; b', parameters: {ONE}}}", "9:5: config d: the grammar"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_an_error(config: str, message: str) -> None:
    with pytest.raises(AikitError) as raised:
        launch(config, "tiny.gguf")
    assert f"error: aikitfile.yaml:{message}" in str(raised.value)


def test_a_file_name_that_begins_a_comment_in_presets_is_refused() -> None:
    with pytest.raises(AikitError, match=r"the model `/models/a#b.gguf` cannot be a setting"):
        launch(None, "a%23b.gguf", "tiny.gguf")


def test_the_documentation_lists_what_is_translated() -> None:
    text = (Path(__file__).parents[2] / "docs/llama-server.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `--([a-z-]+)` \|$", text, re.MULTILINE))
    tables = {**llama_server.SETTINGS, **llama_server.FILES}
    tables |= {f"parameters.{key}": option for key, option in llama_server.PARAMETERS.items()}
    assert listed == {**tables, "parameters.model": "model"}


def test_chat_templates_get_names_that_are_free_and_short() -> None:
    """No letter of these names may stand in a file's name, and a model's folder has the name of another one."""
    names = [chr(0x4E00 + number) for number in range(300)]
    config = "".join(f"- {{name: {name}, parameters: {{model: a.gguf}}, template: *t}}\n" for name in names)
    config = config.replace("*t", "&t {chat: '{{.Input}}'}", 1)
    served = launch(config, "a.gguf")
    assert len(served.files) == 301
    assert list(served.files)[:2] == ["/models/chat.jinja", "/models/chat-2.jinja"]
    assert max(map(len, served.files)) < 30
    served = launch(
        "- {name: x, parameters: {model: x.jinja/m.gguf}, template: {chat: '{{.Input}}'}}", "x.jinja/m.gguf"
    )
    assert list(served.files) == ["/models/x-2.jinja"]


def test_an_empty_text_is_as_good_as_none() -> None:
    config = (
        "- {name: a, parameters: {model: a.gguf}, cache_type_k: '', rope_scaling: '', mmproj: '', lora_adapter: ''}"
    )
    assert options(launch(config, "a.gguf")) == {"--alias": "a", "--model": "/models/a.gguf"}
