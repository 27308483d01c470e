"""What LocalAI is told: all of it in the environment, where a user's arguments replace nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.engines import Launch, localai
from aikit_nix.sources.gguf import Facts
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
