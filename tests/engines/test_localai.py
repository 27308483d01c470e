"""What LocalAI is told: all of it in the environment, where a user's arguments replace nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import Launch, localai
from aikit_nix.engines.memory import MIB, PROGRAM, Memory
from aikit_nix.sources.gguf import Facts, Shape
from aikit_nix.sources.role import Role


def launch(more: str = "", headers: Mapping[str, Facts] = MappingProxyType({})) -> Launch:
    models = "models: [{name: a, source: a.gguf}, {name: b, source: b.gguf}]"
    aikitfile, _ = parse(f"apiVersion: v1alpha1\n{models}\n{more}".encode(), "aikitfile.yaml")
    return localai.launch(aikitfile, headers)


def test_a_users_arguments_replace_nothing() -> None:
    told = launch("debug: true\nloadToMemory: [b, a]\nconfig: '- {name: c, parameters: {model: a.gguf}}'\n")
    assert told.env == {"DEBUG": "true", "CONFIG_FILE": "/config.yaml", "LOCALAI_LOAD_TO_MEMORY": "b,a"}
    assert (told.entrypoint, told.cmd) == ((), ())


def test_what_is_not_asked_for_is_not_set() -> None:
    """LocalAI does not start where CONFIG_FILE names no file."""
    assert launch().env == {}


def test_it_is_well_when_it_is_ready() -> None:
    """It listens long before its models are loaded: `/healthz` answers then, `/readyz` does not."""
    assert launch().probe == ("8080", "/readyz", "--address", "LOCALAI_ADDRESS")


def test_a_config_at_which_it_would_stop_is_refused() -> None:
    with pytest.raises(AikitError, match=r"^error: aikitfile.yaml:3:9: config: threads must be a whole number"):
        launch("config: '- {name: c, threads: many}'\n")


def test_a_part_of_a_model_is_none_of_its_own() -> None:
    """Without a config LocalAI offers every file as a model."""
    headers = {"/models/b.gguf": Facts(role=Role.PROJECTOR)}
    with pytest.raises(AikitError, match=r"b\.gguf is the projector .* name it as `mmproj` in the config of its model"):
        launch(headers=headers)
    (warning,) = launch("config: '- {name: c, parameters: {model: a.gguf}}'\n", headers).warnings
    assert "nothing in the config names b.gguf, the projector" in str(warning)
    assert launch("config: '- {name: c, mmproj: b.gguf, parameters: {model: a.gguf}}'\n", headers).warnings == ()
    with pytest.raises(AikitError, match=r"config c: parameters\.model names b.gguf, which is the projector"):
        launch("config: '- {name: c, parameters: {model: b.gguf}}'\n", headers)


# 1 KiB of cache a token
FACTS = Facts(True, 32768, None, Shape(keys=256, values=256))
SIZE = 1000 * MIB


def memory_of(*settings: str, facts: Facts | None = FACTS) -> Memory | None:
    """For configs of models of 1,000 MiB, one for each of the settings."""
    text = "apiVersion: v1alpha1\nmodels: [{name: a, source: a.gguf}, {name: b, source: b.gguf}]\nconfig: |\n"
    text += "".join(
        f"  - {{name: '{number}', parameters: {{model: a.gguf}}, {each}}}\n" for number, each in enumerate(settings)
    )
    aikitfile, _ = parse(text.encode(), "aikitfile.yaml")
    models = tuple(dataclasses.replace(model, pin=Pin("0" * 64, SIZE)) for model in aikitfile.models)
    headers = {model.path: facts for model in models if facts}
    return localai.launch(dataclasses.replace(aikitfile, models=models), headers).memory


def test_memory_is_the_servers_and_its_backends() -> None:
    one = memory_of("context_size: 4096")
    assert one
    assert one.request == 160 * MIB + SIZE + 4 * MIB + 512 * 2 * 4096 + PROGRAM
    two = memory_of("context_size: 4096", "context_size: 4096")
    assert two
    assert two.request == 2 * one.request - 160 * MIB


@pytest.mark.parametrize(
    ("settings", "cells", "batch"),
    [
        ("backend: llama", 8192, 512),
        ("context_size: -1", 32768, 512),
        ("context_size: 4096, options: ['parallel:3']", 4096, 512),
        ("context_size: 2048, embeddings: true", 2048, 2048),
        ("context_size: 2048, options: ['ubatch:1024', 'x', 'parallel:many']", 2048, 1024),
    ],
)
def test_memory_follows_from_the_config(settings: str, cells: int, batch: int) -> None:
    """Slots share one context."""
    found = memory_of(settings)
    assert found
    assert found.request == 160 * MIB + SIZE + cells * 1024 + batch * 2 * cells + PROGRAM


def test_a_window_bounds_nothing_where_all_of_the_context_is_kept() -> None:
    facts = Facts(True, 8192, None, Shape(window=512, window_keys=256, window_values=256))
    narrow, whole = (memory_of(f"options: ['swa_full:{said}']", facts=facts) for said in ("off", "on"))
    assert narrow
    assert whole
    assert (narrow.request < SIZE + 210 * MIB, whole.request > SIZE + 210 * MIB) == (True, True), (narrow, whole)


def test_prompts_have_the_bound_of_the_config_or_as_much_as_the_model() -> None:
    bounded, free = memory_of("options: ['cache_ram:100']"), memory_of("backend: llama")
    assert bounded
    assert free
    assert bounded.limit == -(-(bounded.request + 100 * MIB) // (256 * MIB)) * 256 * MIB
    assert free.limit > 2 * SIZE


def test_no_memory_is_said_where_a_header_or_a_backend_does_not_tell() -> None:
    assert memory_of("backend: llama", facts=None) is None
    assert memory_of("backend: llama", "backend: stablediffusion") is None
    assert memory_of("backend: llama", "disabled: true, backend: stablediffusion") is not None


def test_a_context_that_no_machine_holds_is_an_error() -> None:
    wide = Facts(True, 4096, None, Shape(keys=1 << 20, values=1 << 20))
    with pytest.raises(AikitError, match=r"config 0: a context of 2000000 tokens takes \d+ TiB of memory"):
        memory_of("context_size: 2000000", facts=wide)
