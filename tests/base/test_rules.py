"""Whoever meets a rule by its name finds what it is about."""

from __future__ import annotations

import re
from pathlib import Path

from aikit_nix.base import rules

# All that `aikit-nix check` runs through.
MODULES = "aikitfile/parser aikitfile/reader aikitfile/review aikitfile/yamltree flakes/check models/lock models/project models/whole models/remote flakes/plan aikitfile/localai_config engines/companions engines/llama_server/launch engines/llama_server/translation"
CODES = (
    r'(?:error|warn|_warning|_error)\(\s*"([a-z0-9-]+)"',
    r'Severity\.[A-Z]+,\s*"([a-z0-9-]+)"',
    r'code="([a-z0-9-]+)"',
    r'\.at,\s*"([a-z0-9-]+)"',
)


def test_every_rule_of_a_finding_is_described_by_a_sentence() -> None:
    assert all(text.endswith(".") for text in rules.DESCRIPTIONS.values())
    source = Path(rules.__file__).parents[1]
    text = "".join((source / f"{name}.py").read_text() for name in MODULES.split())
    used = {code for pattern in CODES for code in re.findall(pattern, text)}
    assert len(used) > 40
    assert used <= set(rules.DESCRIPTIONS)
