"""The keys of LocalAI's model config and what their values must be.

LocalAI v4.9.0: core/config/model_config.go, core/schema/prediction.go, pkg/functions/parse.go, pkg/reasoning/config.go,
and for `options` backend/cpp/llama-cpp/grpc-server.cpp. Maps that nothing here looks into are maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Kind(Enum):
    """What a value must be; the value says it in a message."""

    INTEGER = "a whole number"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    TEXT = "a text"
    TEXTS = "a list of texts"
    NUMBERS = "a list of numbers"
    TEXT_MAP = "a map of texts"
    NUMBER_MAP = "a map of numbers"
    MAP = "a map"


def _kinds(kind: Kind, keys: str, prefix: str = "") -> dict[str, Kind]:
    return {prefix + key: kind for key in keys.split()}


KINDS: Mapping[str, Kind] = {
    **_kinds(
        Kind.INTEGER,
        "context_size gpu_layers max_model_len mirostat n_draft ngqa step swap_space tensor_parallel_size threads",
    ),
    **_kinds(
        Kind.NUMBER,
        "cfg_scale gpu_memory_utilization lora_scale mirostat_eta mirostat_tau rms_norm_eps yarn_attn_factor"
        " yarn_beta_fast yarn_beta_slow yarn_ext_factor",
    ),
    **_kinds(
        Kind.BOOLEAN,
        "cuda debug disable_log_stats disabled embeddings enforce_eager f16 low_vram mmap mmlock no_kv_offloading"
        " no_mulmatq numa pinned prompt_cache_all prompt_cache_ro reranking trust_remote_code",
    ),
    **_kinds(
        Kind.TEXT,
        "name backend alias cache_type_k cache_type_v description draft_model dtype flash_attention grammar load_format"
        " lora_adapter lora_base main_gpu mmproj prompt_cache_path quantization reasoning_effort rope_scaling"
        " system_prompt tensor_split type usage",
    ),
    **_kinds(
        Kind.TEXTS,
        "concurrency_groups cutstrings extract_regex known_input_modalities known_output_modalities known_usecases"
        " lora_adapters options overrides stopwords trimspace trimsuffix",
    ),
    "lora_scales": Kind.NUMBERS,
    **_kinds(
        Kind.MAP,
        "agent chat_template_kwargs compression diffusers engine_args feature_flags function grpc limit_mm_per_prompt"
        " limits mcp mitm parameters pii pii_detection pipeline proxy reasoning router template tts",
    ),
    "roles": Kind.TEXT_MAP,
    **_kinds(
        Kind.INTEGER,
        "batch clip_skip max_tokens n n_keep pooling_half_life_tokens repeat_last_n seed top_k top_logprobs",
        "parameters.",
    ),
    **_kinds(
        Kind.NUMBER,
        "frequency_penalty min_p negative_prompt_scale presence_penalty repeat_penalty rope_freq_base rope_freq_scale"
        " temperature tfz top_p typical_p",
        "parameters.",
    ),
    **_kinds(Kind.BOOLEAN, "echo ignore_eos translate", "parameters."),
    **_kinds(Kind.TEXT, "encoding_format language model negative_prompt pooling tokenizer", "parameters."),
    "parameters.logit_bias": Kind.NUMBER_MAP,
    **_kinds(
        Kind.TEXT,
        "chat chat_message completion edit function multimodal join_chat_messages_by_character reply_prefix",
        "template.",
    ),
    **_kinds(Kind.BOOLEAN, "use_tokenizer_template", "template."),
    **_kinds(Kind.BOOLEAN, "disable disable_reasoning_tag_prefill strip_reasoning_only", "reasoning."),
    **_kinds(Kind.TEXTS, "thinking_start_tokens", "reasoning."),
    **_kinds(
        Kind.BOOLEAN,
        "automatic_tool_parsing_fallback disable_no_action disable_peg_parser grammar.disable",
        "function.",
    ),
    "function.grammar": Kind.MAP,
    # The values of `options`, which are texts to LocalAI and numbers to its llama-cpp
    **_kinds(
        Kind.INTEGER,
        "cache_ram cache_reuse n_cache_reuse checkpoint_min_step checkpoint_min_spacing checkpoint_every_nt"
        " checkpoint_every_n_tokens ctx_checkpoints n_ctx_checkpoints embd_normalize embedding_normalize fit_ctx"
        " fit_params_min_ctx image_max_tokens image_min_tokens n_cpu_moe parallel n_parallel reasoning_budget"
        " enable_reasoning threads_batch n_threads_batch ubatch n_ubatch verbosity spec_n_max draft_max spec_n_min"
        " draft_min draft_gpu_layers draft_threads spec_draft_threads draft_threads_batch spec_draft_threads_batch"
        " draft_n_cpu_moe spec_draft_n_cpu_moe spec_ngram_size_n ngram_size_n spec_ngram_size_m ngram_size_m"
        " spec_ngram_min_hits ngram_min_hits spec_ngram_mod_n_min spec_ngram_mod_n_max spec_ngram_mod_n_match"
        " spec_ngram_map_k_size_n spec_ngram_map_k_size_m spec_ngram_map_k_min_hits spec_ngram_map_k4v_size_n"
        " spec_ngram_map_k4v_size_m spec_ngram_map_k4v_min_hits",
        "options.",
    ),
    **_kinds(Kind.NUMBER, "slot_prompt_similarity sps spec_p_min draft_p_min spec_p_split", "options."),
    **_kinds(
        Kind.TEXT,
        "device devices fit fit_params fit_target fit_params_target override_tensor tensor_buft_overrides pooling"
        " pooling_type reasoning_format split_mode sm spec_type speculative_type draft_cache_type_k"
        " spec_draft_cache_type_k draft_cache_type_v spec_draft_cache_type_v draft_override_tensor"
        " spec_draft_override_tensor lookup_cache_static spec_lookup_cache_static",
        "options.",
    ),
}
