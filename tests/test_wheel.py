"""A wheel carries all that `gen` needs: an installed aikit-nix needs no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.command import aikit_nix

ROOT = Path(__file__).parents[1]
GEN = ("gen", "aikitfile.yaml", "--packages", "debian", "-o")
AIKITFILE = f"""\
apiVersion: v1alpha1
models:
  - {{name: m, source: https://example.com/m.gguf, sha256: "{"1" * 64}"}}
"""


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode) for path in files}


@pytest.mark.usefixtures("nix")
def test_a_wheel_writes_the_flake_that_the_checkout_writes(tmp_path: Path) -> None:
    # Without an isolated environment: pip would download the build backend, which the tests have already.
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    assert not list(installed.rglob("test_*.py"))
    (page,) = installed.glob("*.data/data/share/man/man1/aikit-nix.1")
    assert page.read_bytes() == (ROOT / "docs/aikit-nix.1").read_bytes()
    # A symlink in the checkout.
    assert (installed / "aikit_nix/models/layer.py").read_bytes() == (
        installed / "aikit_nix/data/nix/image/model_layer.py"
    ).read_bytes()

    (tmp_path / "aikitfile.yaml").write_text(AIKITFILE)
    outputs = []
    for name, path in (("one", installed), ("two", ROOT / "generator")):
        # Coverage would count the installed copy too.
        env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
        done = aikit_nix(*GEN, name, cwd=tmp_path, env={**env, "PYTHONPATH": str(path)})
        assert done.returncode == 0, done.stderr
        outputs.append(tree(tmp_path / name))
    assert outputs[0] == outputs[1]
    assert "aikit/image.nix" in outputs[0]
