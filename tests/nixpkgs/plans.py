"""Plans for tests of the Nix side: what `aikit-nix gen` would write to plan.json."""

from __future__ import annotations

import json
from typing import Any

from nixpkgs import toolchain

# `nix build`'s view of a generated flake.
OUTPUTS = f"""
  {{ nixpkgs, plan }}: import {toolchain.REPOSITORY}/nix {{ inherit nixpkgs; plan = builtins.fromJSON plan; }}
"""

# The root flake's checks have it too.
_PLAN = toolchain.REPOSITORY / "tests/fixtures/plan.json"

SYSTEMS: dict[str, Any] = json.loads(_PLAN.read_text())["systems"]


def plan(**changes: Any) -> str:
    """A plan for llama-server with one model from a URL; `changes` replace its top-level values."""
    return json.dumps(json.loads(_PLAN.read_text()) | changes)
