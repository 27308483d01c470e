"""The keys of LocalAI's model config and what their values must be.

localai_keys.json is made of LocalAI's source (tools/localai_keys.py says which files) and moves with its pin. What a value of
`options` must be stands here: it is a text there, which its llama-cpp reads (backend/cpp/llama-cpp/grpc-server.cpp).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path


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


_OF_TYPES = {
    "int": Kind.INTEGER,
    "int32": Kind.INTEGER,
    "float32": Kind.NUMBER,
    "float64": Kind.NUMBER,
    "bool": Kind.BOOLEAN,
    "string": Kind.TEXT,
    "[]string": Kind.TEXTS,
    "[]float32": Kind.NUMBERS,
    "map[string]string": Kind.TEXT_MAP,
    "map[string]float64": Kind.NUMBER_MAP,
    "struct": Kind.MAP,
}
_TYPES: Mapping[str, str] = json.loads(Path(__file__).with_suffix(".json").read_text())["keys"]


def _kind(type_: str) -> Kind | None:
    """What a value of one of Go's types must be; None where nothing here knows."""
    return _OF_TYPES.get(type_) or (Kind.MAP if type_.startswith("map[") else None)


def _options(kind: Kind, names: str) -> dict[str, Kind]:
    return {f"options.{name}": kind for name in names.split()}


KINDS: Mapping[str, Kind] = {
    **{key: kind for key, type_ in _TYPES.items() if (kind := _kind(type_))},
    # The values of `options`, which are texts to LocalAI and numbers to its llama-cpp
    **_options(
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
    ),
    **_options(Kind.NUMBER, "slot_prompt_similarity sps spec_p_min draft_p_min spec_p_split"),
    **_options(
        Kind.TEXT,
        "device devices fit fit_params fit_target fit_params_target override_tensor tensor_buft_overrides pooling"
        " pooling_type reasoning_format split_mode sm spec_type speculative_type draft_cache_type_k"
        " spec_draft_cache_type_k draft_cache_type_v spec_draft_cache_type_v draft_override_tensor"
        " spec_draft_override_tensor lookup_cache_static spec_lookup_cache_static",
    ),
}
