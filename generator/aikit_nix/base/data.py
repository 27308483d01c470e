"""Where files lie: what aikit-nix ships, the Nix library and the templates, and what a user has."""

from __future__ import annotations

import json
import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries them under data/; a checkout has them beside generator/.
_ROOT = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parents[1]

# What commands look for in the current folder
AIKITFILE = Path("aikitfile.yaml")
FLAKE = Path("flake")

NIX = _ROOT / "nix"
TEMPLATES = _ROOT / "templates"

# What YAML does not take, or takes for a line break, where JSON has it as it is.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def template(file: str, /, **values: object) -> str:
    """A template with values, which it writes as JSON or which were checked before: it is no HTML that would be escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.policies["json.dumps_function"] = _json
    environment.policies["json.dumps_kwargs"] = {}
    return environment.get_template(file).render(**values)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
