"""Other people's input: what it may cost, and what of it may reach a terminal."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from support.command import aikit_nix

HEAD = "apiVersion: v1alpha1\n"
# Memory in bytes and CPU time in seconds that no input may exceed; each of these took many times as much.
LIMITS = (1 << 30, 20)


def template(text: str) -> str:
    return f"{HEAD}models: [{{name: m, source: m.gguf, promptTemplates: [{{name: m, template: '{text}'}}]}}]\n"


@pytest.mark.parametrize(
    "text",
    [
        template("{{!" * 200_000),
        template("{{/*" * 200_000),
        template("{{/*" * 200_000 + "*/"),
        template("{{`" * 200_001),
        template("{{ a {{ " * 200_000),
        template('{{ "x{{ "' * 200_000),
        f"{HEAD}models: [{{name: '{'a/' * 80_000}m', source: https://h.example/m.gguf, sha256: '{'1' * 64}'}}]\n",
        f"{HEAD}models: [{{name: m, source: '{'a/' * 80_000}m.gguf'}}]\n",
        # one text of 4 MB that 10,000 templates share
        f"{HEAD}config: &a '{'{{x}}' * 800_000}'\nmodels:\n- name: m\n  source: m.gguf\n  promptTemplates:\n"
        + "".join(f"  - {{name: t{n}, template: *a}}\n" for n in range(10_000)),
    ],
    ids=["character", "comments", "open-comment", "raw", "nested", "quotes", "name", "source", "aliases"],
)
def test_an_aikitfile_costs_no_more_than_its_size_allows(tmp_path: Path, text: str) -> None:
    (tmp_path / "aikitfile.yaml").write_text(text)
    done = aikit_nix("check", cwd=tmp_path, limits=LIMITS)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 200_000


def test_a_gguf_costs_no_more_than_its_size_allows(tmp_path: Path) -> None:
    (tmp_path / "aikitfile.yaml").write_text(f"{HEAD}models: [{{name: m, source: m.gguf}}]\n")
    with (tmp_path / "m.gguf").open("wb") as stream:
        # one key, an array of 2^63 texts, and zeros (a sparse file): each text is empty
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**63))
        stream.truncate(1 << 30)
    done = aikit_nix("check", cwd=tmp_path, limits=LIMITS)
    assert (done.returncode, "claims 9223372036854775808" in done.stderr) == (0, True)
