"""LocalAI's model configs in llama-server's words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import Launch
from aikit_nix.engines.llama_server import chat_template, translation
from aikit_nix.engines.llama_server import launch as llama_server
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.role import Role

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
    drop: bool = False,
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
    return llama_server.launch(aikitfile, headers, drop=drop)


def options(launch: Launch) -> dict[str, str]:
    """The arguments behind the common ones, as pairs."""
    rest = launch.entrypoint[len(BASE) :]
    return dict(zip(rest[::2], rest[1::2], strict=True))


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
        ("options: [direct_io]", "options.direct_io", 56),
        ("options: ['unheard_of:1']", "options.unheard_of", 56),
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
    served = launch(config, "tiny.gguf", templates={"t": template}, drop=True)
    (warning,) = served.warnings
    assert named in str(warning)
    assert re.match(
        r"warning: aikitfile.yaml:\d+:13: config c: the chat template is left out: the one inside", str(warning)
    )
    assert served.files == {}
    with pytest.raises(AikitError, match="config c: the chat template would be lost"):
        launch(config, "tiny.gguf", templates={"t": template})


def test_a_template_that_is_not_there_is_named() -> None:
    config = "- {name: c, template: {chat: nix}, parameters: {model: tiny.gguf}}"
    (warning,) = launch(config, "tiny.gguf", drop=True).warnings
    assert "the template `nix`, which is not there" in str(warning)


@pytest.mark.parametrize(
    "config", [None, "- {name: tiny, template: {completion: '{{.Input}}'}, parameters: {model: tiny.gguf}}"]
)
def test_a_base_model_gets_the_texts_of_the_messages(config: str | None) -> None:
    served = launch(config, "tiny.gguf", headers=header())
    assert served.files == {"/models/tiny.jinja": chat_template.translate(translation.BASE)}
    for other in (UNKNOWN, header("{{ x }}")):
        assert launch(config, "tiny.gguf", headers=other).files == {}


@pytest.mark.parametrize(
    ("headers", "pooling"), [(header(), ("--pooling", "mean")), (header(pooling=2), ()), (UNKNOWN, ())]
)
def test_embeddings_need_a_pooling(headers: Mapping[str, Facts], pooling: tuple[str, ...]) -> None:
    config = "- {name: e, embeddings: true, parameters: {model: tiny.gguf}}"
    served = launch(config, "tiny.gguf", headers=headers).entrypoint[len(BASE) + 4 :]
    assert served == ("--embeddings", "--batch-size", "4096", "--ubatch-size", "4096", *pooling)


def test_stopwords_stop_each_request() -> None:
    config = "- {name: c, stopwords: [a, 'b;c'], parameters: {model: tiny.gguf}}"
    assert launch(config, "tiny.gguf").entrypoint[-4:] == ("--reverse-prompt", "a", "--reverse-prompt", "b;c")


def test_a_preset_holds_one_stopword() -> None:
    other = "\n- {name: d, parameters: {model: tiny.gguf}}"
    served = launch(
        "- {name: c, stopwords: ['#', a, b], parameters: {model: tiny.gguf}}" + other, "tiny.gguf", drop=True
    )
    assert "reverse-prompt = a\n" in served.files["/models.ini"]
    (warning,) = served.warnings
    assert "stopwords is left out: a preset of several models holds one" in str(warning)


def arguments(config: str, *files: str) -> list[str]:
    """Behind the common ones, the alias and the model."""
    return list(
        launch(f"- {{name: c, parameters: {{model: a.gguf}}, {config}}}", "a.gguf", *files).entrypoint[len(BASE) + 4 :]
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("lora_adapter: l.gguf, lora_scale: 0.4", ["--lora-scaled", "/models/l.gguf:0.4"]),
        ("lora_adapter: l.gguf, lora_base: a.gguf", ["--lora-scaled", "/models/l.gguf:1"]),
        ("lora_adapters: [l.gguf, m.gguf], lora_scales: [0.5]", ["--lora-scaled", "/models/l.gguf:0.5,/models/m.gguf:1"]),
        ("draft_model: m.gguf, n_draft: 8", ["--spec-draft-model", "/models/m.gguf", "--spec-draft-n-max", "8"]),
        ("options: ['parallel:2', 'cache_ram:0']", ["--parallel", "2", "--cache-ram", "0", "--ctx-size", "8192"]),
        ("context_size: 512, options: ['parallel:4']", ["--ctx-size", "2048", "--parallel", "4"]),
        ("options: ['kv_unified:false', swa_full, 'cont_batching:off']", ["--no-kv-unified", "--swa-full", "--no-cont-batching"]),
        ("options: ['spec_type:draft_mtp,draft', 'spec_p_min:0.75']", ["--spec-type", "draft-mtp,draft-simple", "--spec-draft-p-min", "0.75"]),
        ("options: ['--override-kv:a=int:1', 'parallel:3', '--no-host']", ["--parallel", "3", "--override-kv", "a=int:1", "--no-host", "--ctx-size", "12288"]),
        ("context_size: 512, options: ['parallel:2', '--ctx_size:8192']", ["--ctx-size", "8192", "--parallel", "2"]),
        ("options: ['n_ubatch:64', 'n_ubatch:128']", ["--ubatch-size", "128"]),
        ("options: ['pooling:last'], embeddings: true", ["--embeddings", "--pooling", "last", "--batch-size", "4096", "--ubatch-size", "4096"]),
        ("reranking: true, context_size: 600", ["--reranking", "--ctx-size", "600", "--batch-size", "600", "--ubatch-size", "600"]),
        ("reasoning_effort: High", ["--chat-template-kwargs", '{"reasoning_effort": "High", "enable_thinking": true}']),
        ("reasoning: {disable: true}, chat_template_kwargs: {a: [1, x]}", ["--chat-template-kwargs", '{"a": [1, "x"], "enable_thinking": false}']),
        ("reasoning: {disable: true}, reasoning_effort: low", ["--chat-template-kwargs", '{"enable_thinking": false, "reasoning_effort": "low"}']),
        ("overrides: ['a=int:1', 'b=bool:true']", ["--override-kv", "a=int:1,b=bool:true"]),
        ("flash_attention: disabled, gpu_layers: 0, yarn_ext_factor: 0", ["--flash-attn", "off", "--n-gpu-layers", "0"]),
        ("mmproj: m.gguf, known_usecases: [chat, vision], f16: true, function: {grammar: {disable: true}}", ["--mmproj", "/models/m.gguf"]),
        ("trimspace: [], cutstrings: [], function: {response_regex: []}, template: {completion: '{{ .Input }}'}, mmlock: false", []),
    ],
)  # fmt: skip
def test_settings_mean_what_they_mean_to_localai(config: str, said: list[str]) -> None:
    assert arguments(config, "l.gguf", "m.gguf") == said


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("batch: 64", ["--batch-size", "64", "--ubatch-size", "64"]),
        ("logit_bias: {15: 1.5, 16: -2}", ["--logit-bias", "15+1.5", "--logit-bias", "16-2"]),
        ("n: 1, echo: false, repeat_penalty: 0, max_tokens: 0, temperature: 0", ["--temp", "0"]),
        ("pooling: mean", ["--pooling", "mean"]),
    ],
)
def test_parameters_mean_what_they_mean_to_localai(parameters: str, said: list[str]) -> None:
    served = launch(f"- {{name: c, parameters: {{model: a.gguf, {parameters}}}}}", "a.gguf")
    assert list(served.entrypoint[len(BASE) + 4 :]) == said
    assert served.warnings == ()


LOST = [
    "cutstrings: [x]",
    "function: {response_regex: ['(?P<name>x)']}",
    "function: {grammar: {schema_type: llama3.1}}",
    "reasoning: {tag_pairs: [{start: a, end: b}]}",
    "template: {completion: 'Say {{.Input}}'}",
    "template: {reply_prefix: x}",
    "pipeline: {llm: x}",
    "download_files: [{filename: x}]",
    "parameters: {model: a.gguf, pooling: decayed_mean}",
    "parameters: {model: a.gguf, echo: true}",
]


@pytest.mark.parametrize("config", LOST)
def test_what_only_localai_does_is_an_error_that_one_option_makes_a_warning(config: str) -> None:
    text = f"- {{name: c, parameters: {{model: a.gguf}}, {config}}}"
    text = text.replace("parameters: {model: a.gguf}, parameters", "parameters")
    with pytest.raises(
        AikitError, match=r"would be lost: .* Use `--engine localai`, or leave it out with `--drop-settings`"
    ):
        launch(text, "a.gguf")
    served = launch(text, "a.gguf", drop=True)
    assert served.entrypoint[len(BASE) :] == ("--alias", "c", "--model", "/models/a.gguf")
    assert "is left out: " in str(served.warnings[0])


def test_an_alias_is_one_more_name_and_what_is_disabled_is_not_served() -> None:
    config = "- {name: c, parameters: {model: a.gguf}}\n- {name: gpt-4, alias: c}\n- {name: d, disabled: true, parameters: {model: x}}"
    assert options(launch(config, "a.gguf"))["--alias"] == "c,gpt-4"
    with pytest.raises(AikitError, match="config x: no model is called `y`"):
        launch("- {name: c, parameters: {model: a.gguf}}\n- {name: x, alias: y}", "a.gguf")


def test_a_negative_context_is_the_models_own() -> None:
    config = "- {name: c, context_size: -1, parameters: {model: a.gguf}, options: ['parallel:2']}"
    headers = {"/models/a.gguf": Facts(True, 2048)}
    assert options(launch(config, "a.gguf", headers=headers))["--ctx-size"] == "4096"


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
        (f"- {{name: c, rope_scaling: dynamic, parameters: {ONE}}}", "8:29: config: rope_scaling must be one of none, linear, yarn, not `dynamic`"),
        (f"- {{name: c, options: ['parallel:two'], parameters: {ONE}}}", "8:24: config: options.parallel must be a whole number, not the text `two`"),
        *((f"- {{name: c, options: ['{option}'], parameters: {ONE}}}", f"8:24: config c: {slots} is no number of slots: 1 to 256") for option, slots in (("parallel:0", 0), ("--parallel:-1", -1), ("n_parallel:257", 257))),
        *((f"- {{name: c, options: ['{option}'], parameters: {ONE}}}", f"8:24: config: options has `{option}`: --") for option in ("--parallel:four", "--ctx_size:8k", "--cache-ram", "--ubatch-size:")),
        (f"- {{name: c, options: ['-np:4'], parameters: {ONE}}}", "8:24: config: options has `-np`: write llama-server's long name for it"),
        (f"- {{name: c, context_size: -1, parameters: {ONE}}}", "8:29: config: context_size is the model's own, which is not known here"),
        (f"- {{name: c, lora_adapter: x, parameters: {ONE}}}", "8:29: config c: lora_adapter names `x`, which is no model file"),
        (f"- {{name: c, lora_adapters: [x], parameters: {ONE}}}", "8:30: config c: lora_adapters names `x`, which is no model file"),
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


def test_without_a_config_a_projector_goes_with_the_one_model() -> None:
    headers = {"/models/eye.gguf": Facts(role=Role.PROJECTOR)}
    assert options(launch(None, "m.gguf", "eye.gguf", headers=headers))["--mmproj"] == "/models/eye.gguf"
    headers = {"/models/eye.gguf": Facts(role=Role.ADAPTER)}
    assert options(launch(None, "m.gguf", "eye.gguf", headers=headers))["--lora"] == "/models/eye.gguf"
    for files in (["eye.gguf"], ["m.gguf", "n.gguf", "eye.gguf"]):
        with pytest.raises(AikitError, match=r"eye\.gguf is an adapter .* name it as `lora_adapter` in the config"):
            launch(None, *files, headers=headers)
    headers = {"/models/eye.gguf": Facts(role=Role.VOCODER)}
    with pytest.raises(AikitError, match=r"eye\.gguf is a vocoder, .* and is no model to serve: leave it out"):
        launch(None, "m.gguf", "eye.gguf", headers=headers)


def test_a_config_names_each_file_for_what_it_is() -> None:
    headers = {"/models/eye.gguf": Facts(role=Role.PROJECTOR), "/models/m.gguf": Facts()}
    config = "- {name: c, mmproj: eye.gguf, parameters: {model: m.gguf}}"
    assert launch(config, "m.gguf", "eye.gguf", headers=headers).warnings == ()
    for wrong in ("parameters: {model: eye.gguf}", "mmproj: m.gguf, parameters: {model: m.gguf}"):
        with pytest.raises(AikitError, match=r"config c: .* names (eye|m)\.gguf, which is (the projector|a model)"):
            launch(f"- {{name: c, {wrong}}}", "m.gguf", "eye.gguf", headers=headers)
    warnings = launch(
        "- {name: c, parameters: {model: m.gguf}}", "m.gguf", "eye.gguf", "n.gguf", headers=headers
    ).warnings
    assert [str(warning).split(": ", 2)[2].split(" (")[0] for warning in warnings] == [
        "nothing in the config names n.gguf, a model",
        "nothing in the config names eye.gguf, the projector",
    ]


def test_a_key_below_a_number_is_none() -> None:
    """A name may have dots: it was taken for the setting that it begins with, and had no kind."""
    text = "models: [{name: m, source: m.gguf}]\nconfig: |\n  - name: m\n    parameters: {model: m.gguf, temperature../x: 0.2}\n"
    found, _ = parse(f"apiVersion: v1alpha1\n{text}".encode(), "f")
    (warning,) = llama_server.launch(found, {}).warnings
    assert "parameters.temperature../x is left out: LocalAI does not know it either" in warning.message
