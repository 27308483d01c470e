"""What llama-server is told of slots, contexts and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from msgspec import structs

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import Launch
from aikit_nix.engines.llama_server import launch as llama_server
from aikit_nix.engines.memory import MIB, PROGRAM
from aikit_nix.sources.gguf import Facts, Shape
from aikit_nix.sources.role import Role

# 1 KiB of cache a token
FACTS = Facts(True, 4096, None, Shape(keys=256, values=256))
SIZE = 1000 * MIB
ROLES = {"/models/projector.gguf": Role.PROJECTOR, "/models/adapter.gguf": Role.ADAPTER}


def launch(config: str = "", names: tuple[str, ...] = ("a.gguf",), facts: Facts | None = FACTS) -> Launch:
    """For models of 1,000 MiB each, with the same header."""
    text = "apiVersion: v1alpha1\nmodels:\n"
    text += "".join(f"- {{name: {name}, source: 'https://example.com/{name}'}}\n" for name in names)
    parsed, _ = parse((text + config).encode(), "aikitfile.yaml")
    models = tuple(dataclasses.replace(model, pin=Pin("0" * 64, SIZE)) for model in parsed.models)
    headers: Mapping[str, Facts] = {
        model.path: structs.replace(facts, role=ROLES.get(model.path, Role.MODEL)) for model in models if facts
    }
    return llama_server.launch(dataclasses.replace(parsed, models=models), headers)


def config(settings: str) -> str:
    return f"config: |\n  - {{name: a, parameters: {{model: a.gguf}}, {settings}}}\n"


def test_the_defaults_are_localais() -> None:
    env = launch(facts=None).env
    assert (env["LLAMA_ARG_CTX_SIZE"], env["LLAMA_ARG_N_PARALLEL"], env["LLAMA_ARG_CACHE_RAM"]) == ("4096", "1", "256")
    assert launch(facts=None).memory is None


def test_an_image_of_no_gguf_has_no_estimate() -> None:
    served = launch(names=("m.bin",), facts=None)
    assert (served.memory, served.env["LLAMA_ARG_CACHE_RAM"]) == (None, "256")


def test_the_cache_of_prompts_gets_what_the_limit_leaves() -> None:
    served = launch()
    assert served.memory
    buffers = 512 * 2 * 4096
    assert served.memory.request == SIZE + 4 * MIB + buffers + PROGRAM
    assert served.memory.limit == 1536 * MIB
    assert served.memory.request + int(served.env["LLAMA_ARG_CACHE_RAM"]) * MIB <= served.memory.limit


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ("context_size: 8192", 4 * MIB + 512 * 2 * 4096),
        ("options: ['parallel:3']", 8 * MIB + 512 * 2 * 8192),
        ("cache_type_k: q8_0", -MIB * 15 // 16),
        ("options: ['ubatch:1024']", 512 * 2 * 4096),
    ],
)
def test_the_request_follows_from_the_settings(settings: str, more: int) -> None:
    plain, told = launch().memory, launch(config(settings)).memory
    assert plain
    assert told
    assert told.request - plain.request == more


@pytest.mark.parametrize(("size", "least"), [(2000, 2000), (-1, 8192), (0, 0)])
def test_the_configs_own_cache_of_prompts_is_within_the_limit(size: int, least: int) -> None:
    memory = launch(config(f"options: ['cache_ram:{size}']")).memory
    assert memory
    assert memory.limit - memory.request >= least * MIB


def test_shards_and_what_is_loaded_beside_the_model_count() -> None:
    names = ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    served = launch(names=names)
    assert served.memory
    assert served.memory.request > 2 * SIZE
    served = launch(
        config("mmproj: projector.gguf, lora_adapter: adapter.gguf"), ("a.gguf", "projector.gguf", "adapter.gguf")
    )
    assert served.memory
    assert served.memory.request > 3 * SIZE


def test_an_adapter_without_a_config_counts() -> None:
    served = launch(names=("a.gguf", "adapter.gguf"))
    assert served.memory
    assert served.memory.request > 2 * SIZE


def test_a_window_bounds_nothing_where_all_of_the_context_is_kept() -> None:
    facts = Facts(True, 4096, None, Shape(keys=256, values=256, window=512, window_keys=256, window_values=256))
    memory = launch(config("context_size: 8192, options: [swa_full]"), facts=facts).memory
    assert memory
    assert memory.request >= SIZE + 16 * MIB + PROGRAM


@pytest.mark.parametrize(
    ("settings", "checkpoints"), [("", 32), ("options: ['ctx_checkpoints:4']", 4), ("options: [swa_full]", 0)]
)
def test_the_limit_has_room_for_the_checkpoints_of_a_window(settings: str, checkpoints: int) -> None:
    """Each is a copy of the window's cache, beside the cache of prompts."""
    facts = Facts(True, 4096, None, Shape(keys=256, values=256, window=1536, window_keys=4096, window_values=4096))
    served = launch(config(settings), facts=facts)
    assert served.memory
    kept = int(served.env["LLAMA_ARG_CACHE_RAM"]) * MIB + checkpoints * 32 * MIB
    assert served.memory.request + kept <= served.memory.limit
    assert served.memory.limit < served.memory.request * 5 // 4 + checkpoints * 32 * MIB + 256 * MIB


def test_of_several_models_four_are_loaded() -> None:
    four, five = (launch(names=tuple(f"{letter}.gguf" for letter in letters)).memory for letters in ("abcd", "abcde"))
    assert four
    assert four == five
    assert four.request > 4 * SIZE


def test_a_context_that_no_machine_holds_is_an_error() -> None:
    wide = Facts(True, 4096, None, Shape(keys=1 << 20, values=1 << 20))
    with pytest.raises(AikitError, match=r"config a: a context of 2000000 tokens takes 7 TiB of memory"):
        launch(config("context_size: 2000000"), facts=wide)
