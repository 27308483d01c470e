"""Where the files that aikit-nix ships lie: the Nix library and the templates."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries them under data/; a checkout has them beside generator/.
_ROOT = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parents[1]

NIX = _ROOT / "nix"
TEMPLATES = _ROOT / "templates"
