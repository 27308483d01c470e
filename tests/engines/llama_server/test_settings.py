"""The table of settings: complete, true to llama-server's own help, and what the documentation says."""

from __future__ import annotations

import os
import re
from pathlib import Path

from aikit_nix.aikitfile.localai_keys import KINDS
from aikit_nix.engines.llama_server.settings import SETTINGS, Becomes, Setting, find

DOCS = Path(__file__).parents[3] / "docs/llama-server.md"
_BEGIN, _END = "<!-- settings: made by tests/engines/llama_server/test_settings.py -->\n", "<!-- settings end -->"


def cell(setting: Setting) -> str:
    """What the documentation says of a setting."""
    option = f"`--{setting.option}`"
    said = {
        Becomes.OPTION: option,
        Becomes.FILE: option,
        Becomes.FLAG: f"{option} where it is true",
        Becomes.SWITCH: f"{option} or `--no-{setting.option}`",
        Becomes.MORE: "",
    }.get(setting.becomes, setting.becomes.value)
    return "; ".join(filter(None, (said, setting.note)))


def documented() -> str:
    """The table; keys that become the same stand in one row."""
    rows: dict[str, list[str]] = {}
    for setting in SETTINGS.values():
        rows.setdefault(cell(setting), []).append(f"`{setting.key}`")
    lines = [f"| {', '.join(keys)} | {said} |" for said, keys in rows.items()]
    return "\n".join(["| LocalAI | llama-server |", "| --- | --- |", *lines]) + "\n"


def test_the_documentation_has_the_table() -> None:
    """AIKIT_WRITE_DOCS=1 writes it."""
    before, rest = DOCS.read_text().split(_BEGIN)
    written, after = rest.split(_END)
    if os.environ.get("AIKIT_WRITE_DOCS"):
        DOCS.write_text(f"{before}{_BEGIN}{documented()}{_END}{after}")
    else:
        assert written == documented()


def test_each_setting_stands_in_the_table() -> None:
    assert [key for key in KINDS if find(key) is None] == ["function", "parameters", "reasoning", "template"]
    options = [setting for setting in SETTINGS.values() if setting.becomes is Becomes.OPTION]
    assert [setting.key for setting in options if setting.key not in KINDS] == []
    assert all(re.fullmatch("[a-z0-9-]+", setting.option) for setting in options)
