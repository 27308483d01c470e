"""`aikit-nix fmt` as a user runs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.models.project import read
from support.command import aikit_nix

FIXTURES = Path(__file__).parents[1] / "fixtures"
UGLY = """\
#syntax=ghcr.io/sozercan/aikit:latest
apiVersion:   v1alpha1
debug: yes # on, in YAML 1.1
models:
- name: "m"   # its name
  # where it is
  source: m.gguf\x20\x20

  promptTemplates:
      - name: 'c'
        template: |-
            {{.Input}}\x20\x20
               x
# what the server reads
config: |
    - name: m
# the end
"""
TIDY = """\
#syntax=ghcr.io/sozercan/aikit:latest
apiVersion: v1alpha1
debug: yes # on, in YAML 1.1
models:
  - name: "m" # its name
    # where it is
    source: m.gguf

    promptTemplates:
      - name: 'c'
        template: |-
          {{.Input}}\x20\x20
             x
# what the server reads
config: |
  - name: m
# the end
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_one_indentation_and_every_comment(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "aikitfile.yaml"
    path.write_text(mark + UGLY.replace("\n", end), newline="")
    path.chmod(0o640)
    assert aikit_nix("fmt", "--check", cwd=tmp_path).returncode == 1
    diff = aikit_nix("fmt", "--diff", cwd=tmp_path)
    assert diff.returncode == 1
    assert "+apiVersion: v1alpha1\n" in diff.stdout
    assert aikit_nix("fmt", cwd=tmp_path).stdout == "formatted aikitfile.yaml\n"
    assert path.read_bytes().decode() == TIDY
    assert path.stat().st_mode & 0o777 == 0o640
    again = aikit_nix("fmt", "--check", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "")


def test_unescape_settles_the_question(tmp_path: Path) -> None:
    path = tmp_path / "aikitfile.yaml"
    path.write_bytes((FIXTURES / "spec-example.yaml").read_bytes())
    assert aikit_nix("fmt", "--unescape", cwd=tmp_path).returncode == 0
    for escapes in Escapes:
        parsed = read(path, escapes).aikitfile
        assert parsed.config is not None
        assert hashlib.sha256(parsed.config.value.encode()).hexdigest().startswith("f36eda671ef5")
        text = parsed.models[0].prompt_templates[0].template.value
        assert hashlib.sha256(text.encode()).hexdigest().startswith("22b1748764bd")
    assert path.read_text().startswith("#syntax=ghcr.io/sozercan/aikit:latest\napiVersion: v1alpha1\ndebug: true\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TIDY + "debug: no\n", "double keys"),
        (TIDY + "---\nother: document\n", "fmt keeps one document"),
        (TIDY.replace("v1alpha1", "v2"), "write `v1alpha1`"),
    ],
)
def test_what_fmt_leaves_alone(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "aikitfile.yaml"
    path.write_text(text)
    done = aikit_nix("fmt", cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["aikitfile.yaml"]


def test_a_diff_has_the_lines_that_patch_knows(tmp_path: Path) -> None:
    path = tmp_path / "aikitfile.yaml"
    model = "apiVersion: v1alpha1\nmodels:\n- {name: m, source: m.gguf}\n"
    path.write_text('config: "a\u2028 b"\n' + model, newline="")
    done = aikit_nix("fmt", "--diff", cwd=tmp_path)
    assert '-config: "a\u2028 b"\n' in done.stdout, done.stderr
    assert all(line[0] in "-+@ " for line in done.stdout.removesuffix("\n").split("\n"))
