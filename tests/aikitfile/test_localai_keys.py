"""The keys are LocalAI's: those of its own source, where LOCALAI_SRC names a tree of the pinned release."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import localai_keys
from aikit_nix.aikitfile.localai_keys import KINDS, Kind
from aikit_nix.engines.llama_server import settings

TABLE = json.loads((localai_keys.ROOT / localai_keys.FILE).read_text())
KEYS = {*TABLE["keys"], *(f"options.{name}" for name in TABLE["options"])}


def test_the_table_is_that_of_localais_source() -> None:
    if not (named := os.environ.get("LOCALAI_SRC")):
        pytest.skip("LOCALAI_SRC names no tree of the pinned LocalAI")
    assert (localai_keys.ROOT / localai_keys.FILE).read_text() == localai_keys.table(Path(named))


def test_each_key_and_option_of_localai_has_a_row_and_there_are_no_others() -> None:
    assert {key for key in KEYS if settings.find(key) is None} == {"parameters", "template", "function", "reasoning"}
    assert {*KINDS, *settings.SETTINGS} - KEYS == set()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("context_size", Kind.INTEGER),
        ("parameters.model", Kind.TEXT),
        ("parameters.logit_bias", Kind.NUMBER_MAP),
        ("function.grammar", Kind.MAP),
        ("feature_flags", Kind.MAP),
        ("parameters.logprobs", None),  # reads its YAML itself
        ("options.parallel", Kind.INTEGER),
    ],
)
def test_what_a_value_must_be_follows_from_its_type(key: str, kind: Kind | None) -> None:
    assert key in KEYS
    assert KINDS.get(key) is kind
