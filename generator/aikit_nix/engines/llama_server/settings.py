"""What every setting of LocalAI's model config becomes for llama-server: one table.

The keys are those of aikitfile/localai_keys.py, and what LocalAI does with them stands in its core/backend/options.go and
backend/cpp/llama-cpp/grpc-server.cpp. What llama-server has for them: its
`--help` in llama.cpp b9842 (nixpkgs) and b11669 (Debian); only options that both have are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from aikit_nix.aikitfile.localai_config import MOST_CHARACTERS, ConfigValue
from aikit_nix.aikitfile.localai_keys import KINDS, Kind
from aikit_nix.aikitfile.reader import short
from aikit_nix.engines.memory import CACHE_TYPES

# An option without its dashes, and its value; None for one that takes none.
Option = tuple[str, str | None]


class Becomes(Enum):
    """What a setting becomes; the value says it in the documentation."""

    OPTION = "the option with the value"
    FLAG = "the option where it is true"
    SWITCH = "the option, with `no-` where it is false"
    FILE = "the option with the model file of that name"
    MORE = "what the note says"
    NOTHING = "nothing: no answer depends on it"
    WARNING = "nothing, and a warning: no answer depends on it"
    LOCALAI = "an error: only LocalAI does it"


@dataclass(frozen=True)
class Setting:
    """One key of the config. `option` is llama-server's, without dashes."""

    key: str
    becomes: Becomes
    option: str = ""
    note: str = ""


def _rows(becomes: Becomes, keys: str, note: str = "", prefix: str = "") -> Iterator[Setting]:
    """Rows for keys, as `KEY` or `KEY=OPTION`; without an option of its own a key's name is the option's."""
    for key in keys.split():
        name, _, option = key.partition("=")
        named = becomes in (Becomes.OPTION, Becomes.FLAG, Becomes.SWITCH, Becomes.FILE)
        yield Setting(prefix + name, becomes, option or (name.replace("_", "-") if named else ""), note)


_OTHER = "for LocalAI's other backends"
_UNREAD = "LocalAI's llama-cpp does not read it"
_ROWS = (
    *_rows(Becomes.MORE, "name", "the model's name in the API"),
    *_rows(Becomes.MORE, "backend", "`llama`, `llama-cpp` or left out; another is an error"),
    *_rows(Becomes.MORE, "alias", "one more name; of several models an error"),
    *_rows(Becomes.MORE, "disabled", "where it is true the model is not served"),
    *_rows(Becomes.MORE, "roles system_prompt", "part of the chat template, see below"),
    *_rows(Becomes.MORE, "stopwords", "`--reverse-prompt` for each; a request's own `stop` replaces them"),
    *_rows(Becomes.MORE, "chat_template_kwargs reasoning_effort", "`--chat-template-kwargs`"),
    *_rows(Becomes.MORE, "lora_adapter lora_scale lora_adapters lora_scales", "`--lora-scaled FILE:SCALE,…`"),
    *_rows(Becomes.MORE, "overrides", "`--override-kv`"),
    *_rows(Becomes.MORE, "options", "`NAME:VALUE` by the rows `options.NAME`, `--NAME:VALUE` as it is"),
    *_rows(
        Becomes.OPTION,
        "cache_type_k cache_type_v context_size=ctx-size flash_attention=flash-attn gpu_layers=n-gpu-layers grammar"
        " main_gpu mirostat mirostat_eta=mirostat-lr mirostat_tau=mirostat-ent n_draft=spec-draft-n-max rope_scaling"
        " tensor_split threads yarn_attn_factor yarn_beta_fast yarn_beta_slow yarn_ext_factor",
    ),
    *_rows(Becomes.FLAG, "embeddings no_kv_offloading=no-kv-offload reranking"),
    *_rows(Becomes.FILE, "mmproj draft_model=spec-draft-model"),
    *_rows(Becomes.WARNING, "mmap mmlock", "how the file is read"),
    *_rows(Becomes.NOTHING, "f16", "the cache has 16 bits unless `cache_type_k` and `cache_type_v` say otherwise"),
    *_rows(Becomes.NOTHING, "lora_base", "LocalAI's llama-cpp looks only whether it is there"),
    *_rows(
        Becomes.NOTHING,
        "low_vram no_mulmatq ngqa numa prompt_cache_all prompt_cache_path prompt_cache_ro rms_norm_eps",
        _UNREAD,
    ),
    *_rows(
        Becomes.NOTHING,
        "cfg_scale cuda diffusers disable_log_stats dtype enforce_eager engine_args gpu_memory_utilization"
        " limit_mm_per_prompt load_format max_model_len quantization step swap_space tensor_parallel_size"
        " trust_remote_code tts type",
        _OTHER,
    ),
    *_rows(
        Becomes.NOTHING,
        "concurrency_groups debug description feature_flags grpc known_input_modalities known_output_modalities"
        " known_usecases pinned usage",
        "for LocalAI's own house-keeping",
    ),
    *_rows(Becomes.LOCALAI, "artifacts download_files", "LocalAI downloads them: list the files under `models`"),
    *_rows(
        Becomes.LOCALAI,
        "agent compression cutstrings extract_regex limits mcp mitm pii pii_detection pipeline proxy router"
        " trimspace trimsuffix",
    ),
    *_rows(Becomes.FILE, "model", prefix="parameters."),
    *_rows(
        Becomes.OPTION,
        "frequency_penalty max_tokens=predict min_p n_keep=keep presence_penalty repeat_last_n repeat_penalty"
        " rope_freq_base rope_freq_scale seed temperature=temp top_k top_p typical_p=typical",
        prefix="parameters.",
    ),
    *_rows(Becomes.MORE, "batch", "`--batch-size` and `--ubatch-size`", "parameters."),
    *_rows(Becomes.MORE, "logit_bias", "`--logit-bias` for each token", "parameters."),
    *_rows(Becomes.MORE, "pooling", "`--pooling`; `decayed_mean` is an error", "parameters."),
    *_rows(Becomes.FLAG, "ignore_eos", prefix="parameters."),
    *_rows(Becomes.NOTHING, "tfz negative_prompt negative_prompt_scale", _UNREAD, "parameters."),
    *_rows(Becomes.NOTHING, "clip_skip language tokenizer translate", _OTHER, "parameters."),
    *_rows(Becomes.NOTHING, "pooling_half_life_tokens", "part of `pooling: decayed_mean`", "parameters."),
    *_rows(
        Becomes.LOCALAI, "echo encoding_format logprobs n top_logprobs", "a request asks for it itself", "parameters."
    ),
    *_rows(Becomes.MORE, "chat chat_message function", "part of the chat template, see below", "template."),
    *_rows(
        Becomes.MORE,
        "join_chat_messages_by_character use_tokenizer_template",
        "part of the chat template, see below",
        "template.",
    ),
    *_rows(
        Becomes.MORE,
        "completion",
        "nothing where it prints `{{.Input}}` and no more, else an error: only LocalAI does it",
        "template.",
    ),
    *_rows(Becomes.NOTHING, "edit", "llama-server has no `/v1/edits`", "template."),
    *_rows(Becomes.LOCALAI, "multimodal reply_prefix", prefix="template."),
    *_rows(Becomes.MORE, "disable", "`enable_thinking` of `--chat-template-kwargs`", "reasoning."),
    *_rows(
        Becomes.LOCALAI,
        "disable_reasoning_tag_prefill strip_reasoning_only tag_pairs thinking_start_tokens",
        prefix="reasoning.",
    ),
    *_rows(
        Becomes.NOTHING,
        "automatic_tool_parsing_fallback disable_no_action disable_peg_parser grammar.disable",
        "llama-server finds tool calls by the chat template, and has no tool of its own",
        "function.",
    ),
    *_rows(
        Becomes.LOCALAI,
        "argument_regex argument_regex_key_name argument_regex_value_name capture_llm_results function_arguments_key"
        " function_name_key grammar json_regex_match no_action_description_name no_action_function_name"
        " replace_function_results replace_llm_results response_regex xml_format xml_format_preset",
        prefix="function.",
    ),
    *_rows(
        Becomes.OPTION,
        "cache_ram cache_reuse n_cache_reuse=cache-reuse checkpoint_min_step checkpoint_min_spacing=checkpoint-min-step"
        " checkpoint_every_nt=checkpoint-min-step checkpoint_every_n_tokens=checkpoint-min-step"
        " ctx_checkpoints n_ctx_checkpoints=ctx-checkpoints device devices=device embd_normalize"
        " embedding_normalize=embd-normalize fit fit_params=fit fit_ctx fit_params_min_ctx=fit-ctx fit_target"
        " fit_params_target=fit-target image_max_tokens image_min_tokens n_cpu_moe override_tensor"
        " tensor_buft_overrides=override-tensor parallel n_parallel=parallel pooling pooling_type=pooling"
        " reasoning_budget enable_reasoning=reasoning-budget reasoning_format slot_prompt_similarity"
        " sps=slot-prompt-similarity split_mode sm=split-mode threads_batch n_threads_batch=threads-batch"
        " ubatch=ubatch-size n_ubatch=ubatch-size verbosity spec_type speculative_type=spec-type",
        prefix="options.",
    ),
    *_rows(
        Becomes.OPTION,
        "spec_n_max=spec-draft-n-max draft_max=spec-draft-n-max spec_n_min=spec-draft-n-min draft_min=spec-draft-n-min"
        " spec_p_min=spec-draft-p-min draft_p_min=spec-draft-p-min spec_p_split=spec-draft-p-split"
        " draft_gpu_layers=spec-draft-ngl draft_cache_type_k=spec-draft-type-k"
        " spec_draft_cache_type_k=spec-draft-type-k draft_cache_type_v=spec-draft-type-v"
        " spec_draft_cache_type_v=spec-draft-type-v draft_threads=spec-draft-threads spec_draft_threads"
        " draft_threads_batch=spec-draft-threads-batch spec_draft_threads_batch draft_n_cpu_moe=spec-draft-n-cpu-moe"
        " spec_draft_n_cpu_moe draft_override_tensor=spec-draft-override-tensor spec_draft_override_tensor"
        " spec_ngram_size_n=spec-ngram-simple-size-n ngram_size_n=spec-ngram-simple-size-n"
        " spec_ngram_size_m=spec-ngram-simple-size-m ngram_size_m=spec-ngram-simple-size-m"
        " spec_ngram_min_hits=spec-ngram-simple-min-hits ngram_min_hits=spec-ngram-simple-min-hits"
        " spec_ngram_mod_n_min spec_ngram_mod_n_max spec_ngram_mod_n_match spec_ngram_map_k_size_n"
        " spec_ngram_map_k_size_m spec_ngram_map_k_min_hits spec_ngram_map_k4v_size_n spec_ngram_map_k4v_size_m"
        " spec_ngram_map_k4v_min_hits",
        prefix="options.",
    ),
    *_rows(
        Becomes.FILE,
        "lookup_cache_static spec_lookup_cache_static=lookup-cache-static",
        prefix="options.",
    ),
    *_rows(
        Becomes.FLAG,
        "check_tensors cpu_moe no_op_offload swa_full draft_cpu_moe=spec-draft-cpu-moe spec_draft_cpu_moe",
        prefix="options.",
    ),
    *_rows(
        Becomes.SWITCH,
        "cache_idle_slots idle_slots_cache=cache-idle-slots cont_batching continuous_batching=cont-batching"
        " context_shift jinja use_jinja=jinja kv_unified unified_kv=kv-unified mmproj_offload"
        " mmproj_use_gpu=mmproj-offload prefill_assistant warmup",
        prefix="options.",
    ),
    *_rows(Becomes.NOTHING, "draft_ctx_size", "llama.cpp has no such option any more", "options."),
    *_rows(
        Becomes.WARNING,
        "direct_io use_direct_io grpc_servers rpc_servers lookup_cache_dynamic spec_lookup_cache_dynamic n_rs_seq rs_seq",
        prefix="options.",
    ),
)

# LocalAI's own where the config says nothing (core/config/defaults.go); the batch is llama-server's, too
DEFAULT_CONTEXT = 4096
DEFAULT_BATCH = 512
MOST_SLOTS = 256  # LLAMA_MAX_SEQ
# Of llama-server's own options those that count here, too: whole numbers
_NUMBERS = frozenset(["ctx-size", "parallel", "ubatch-size", "cache-ram", "ctx-checkpoints"])

# What is not set where it is 0
_NEVER_0 = frozenset(
    [
        "context_size",
        "threads",
        "n_draft",
        "yarn_attn_factor",
        "yarn_beta_fast",
        "yarn_beta_slow",
        "yarn_ext_factor",
        "parameters.batch",
        "parameters.max_tokens",
        "parameters.repeat_penalty",
        "parameters.rope_freq_base",
        "parameters.rope_freq_scale",
    ]
)
_ANYWAY: Mapping[str, tuple[str, ...]] = {
    "mmap": ("true",),
    "parameters.n": ("0", "1"),
    "parameters.encoding_format": ("float",),
}
_CACHE_TYPES = " ".join(CACHE_TYPES)
# The words that an option takes
_WORDS: Mapping[str, str] = {
    "cache-type-k": _CACHE_TYPES,
    "cache-type-v": _CACHE_TYPES,
    "flash-attn": "on off auto",
    "fit": "on off",
    "pooling": "none mean cls last rank",
    "reasoning-format": "none auto deepseek deepseek-legacy",
    "rope-scaling": "none linear yarn",
    "spec-draft-type-k": _CACHE_TYPES,
    "spec-draft-type-v": _CACHE_TYPES,
    "split-mode": "none layer row tensor",
}
_ON_OFF = {
    **dict.fromkeys(("true", "enabled", "1", "yes"), "on"),
    **dict.fromkeys(("false", "disabled", "0", "no"), "off"),
}
# How LocalAI, or an older one, has these words
_SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "flash-attn": _ON_OFF,
    "fit": _ON_OFF,
    "reasoning-format": {"deepseek_legacy": "deepseek-legacy"},
}

SETTINGS: Mapping[str, Setting] = {row.key: row for row in _ROWS}


def find(key: str) -> Setting | None:
    """The row for a dotted key: its own, or that of the map that it stands in; None for what LocalAI does not know."""
    while key not in SETTINGS and "." in key and not key.startswith("options."):
        key = key.rpartition(".")[0]
    return SETTINGS.get(key)


def is_unset(value: ConfigValue) -> bool:
    """Whether LocalAI takes a value for none: an empty text, list or map, and 0 for what is never 0."""
    if value.is_empty:
        return True
    return value.key in _NEVER_0 and value.number() == 0


def is_done_anyway(value: ConfigValue) -> bool:
    """Whether a value without counterpart says what llama-server does by itself."""
    return value.node.text in _ANYWAY.get(value.key, ("false", "0"))


def options(setting: Setting, value: ConfigValue) -> list[Option]:
    """What a value becomes by its row alone. Raises AikitError where it is none that llama-server takes."""
    match setting.becomes:
        case Becomes.OPTION:
            return [(setting.option, _text(setting, value))]
        case Becomes.FLAG:
            return [(setting.option, None)] if value.boolean() else []
        case Becomes.SWITCH:
            return [(setting.option if value.boolean() else f"no-{setting.option}", None)]
        case _:
            return _more(value)


def own(item: ConfigValue) -> Option:
    """One of llama-server's own options, `--NAME:VALUE` or `--NAME`. Raises AikitError where it is none that it takes."""
    name, colon, value = item.text().partition(":")
    if not name.startswith("--"):
        raise item.error(f"has `{short(name)}`: write llama-server's long name for it, with two dashes")
    option = name.removeprefix("--").replace("_", "-")
    if option in _NUMBERS and not re.fullmatch("-?[0-9]{1,9}", value, re.ASCII):
        raise item.error(f"has `{short(item.text())}`: {name} takes a whole number")
    return option, value if colon else None


def _more(value: ConfigValue) -> list[Option]:
    match value.key:
        case "parameters.batch":
            size = str(value.integer())
            return [("batch-size", size), ("ubatch-size", size)]
        case "parameters.logit_bias":
            return [("logit-bias", f"{token}{bias:+}") for token, bias in value.number_map().items()]
        case "parameters.pooling" if value.text() != "backend":
            return [("pooling", value.text())]
        case "overrides":
            return [("override-kv", ",".join(value.texts()))]
    return []


def _text(setting: Setting, value: ConfigValue) -> str:
    """The value as an argument. llama-server's numbers have 32 bits."""
    match KINDS[value.key]:
        case Kind.INTEGER:
            number = value.integer()
            if not -(2**31) <= number < (2**32 if value.key == "parameters.seed" else 2**31):
                raise value.error(f"is too large: {number}")
            return str(number)
        case Kind.NUMBER:
            return str(value.number())
        case _:
            text = value.text()
            if len(text) > MOST_CHARACTERS:
                raise value.error(f"is more than {MOST_CHARACTERS} characters: no program takes so long an argument")
            text = _SPELLINGS.get(setting.option, {}).get(text, text)
            allowed = _WORDS.get(setting.option)
            if allowed and text not in allowed.split():
                raise value.error(f"must be one of {', '.join(allowed.split())}, not `{short(text)}`")
            return _speculative(text) if setting.option == "spec-type" else text


def _speculative(text: str) -> str:
    """The names of today for those of older llama.cpps, as grpc-server.cpp has them."""
    names = (name.replace("_", "-") for name in text.split(",") if name)
    return ",".join({"draft": "draft-simple", "eagle3": "draft-eagle3"}.get(name, name) for name in names)
