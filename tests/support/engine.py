"""conftest, which has Open Policy Agent in it, with the policy that docs/proof.md shows."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support import docs


def accepts(folder: Path, envelopes: Sequence[Path], *, but: str = "", licenses: str | None = None) -> None:
    """Assert that it accepts statements that cosign verified, or refuses them with a message (`but`)."""
    (text,) = docs.blocks("proof.md", "With other policy engines", "rego")
    (folder / "policy").mkdir(exist_ok=True)
    own = text.replace('{"apache-2.0", "mit"}', licenses) if licenses else text
    (folder / "policy/rebuilds.rego").write_text(own)
    argv = ["conftest", "test", "--combine", "--no-color", *map(str, envelopes)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, but in done.stdout) == (int(bool(but)), True), done.stdout + done.stderr
