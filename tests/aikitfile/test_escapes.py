r"""How the shell's escapes are read: what AIKit's versions wrote, and what a text's author meant.

Its properties stand in test_language_properties.py.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from aikit_nix.aikitfile import escapes as compat
from aikit_nix.aikitfile.escapes import Escapes, Reading, resolve
from aikit_nix.aikitfile.parser import parse
from support import aikit_versions as versions
from support.aikit_versions import DOCUMENTED

DASH = shutil.which("dash")


@pytest.mark.parametrize("era", [versions.EARLY, versions.SHELL, versions.LATER])
@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_a_text_is_what_that_aikit_wrote_or_a_documented_divergence(row: versions.TextRow, era: str) -> None:
    ours = resolve(row.text, row.kind, Escapes.AUTO).text
    assert ours == row.ours
    aikit = row.aikit(era)
    if aikit == ours.encode():
        return
    if era == versions.LATER:
        differs: str | None = "later-verbatim"
    elif era == versions.EARLY and row.shell == ours.encode():
        differs = "early-newline"
    else:
        differs = row.differs
    assert differs in DOCUMENTED


@pytest.mark.skipif(DASH is None, reason="dash is not installed")
@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_the_table_is_what_dash_does(row: versions.TextRow) -> None:
    try:
        done = subprocess.run(
            [DASH or "dash", "-c", f'echo -n "{row.text}"'], capture_output=True, env={"PATH": ""}, check=False
        )
    except OSError:  # more than 128 KiB in one argument
        assert row.shell is versions.FAILS
        return
    if row.shell is versions.FAILS:
        assert done.returncode == 2
    else:
        assert done.stdout == row.shell


@pytest.mark.parametrize("row", versions.TEXTS, ids=lambda row: row.what)
def test_verbatim_is_what_aikit_writes_after_its_last_shell(row: versions.TextRow) -> None:
    assert resolve(row.text, row.kind, Escapes.VERBATIM).text.encode() == row.aikit(versions.LATER)


@pytest.mark.parametrize(
    "row",
    [row for row in versions.TEXTS if row.differs in (None, "well-formed") and row.shell is not None],
    ids=lambda row: row.what,
)
def test_shell_is_what_the_shell_wrote_wherever_it_destroyed_nothing(row: versions.TextRow) -> None:
    assert resolve(row.text, row.kind, Escapes.SHELL).text.encode() == row.shell


def test_the_spec_pages_example_in_every_reading() -> None:
    data = (Path(__file__).parents[1] / "fixtures/spec-example.yaml").read_bytes()

    def facts(escapes: Escapes) -> list[tuple[int, str]]:
        parsed, _ = parse(data, "aikitfile.yaml", escapes)
        assert parsed.config is not None
        texts = [parsed.models[0].prompt_templates[0].template.value, parsed.config.value]
        return [(len(text.encode()), hashlib.sha256(text.encode()).hexdigest()[:12]) for text in texts]

    assert facts(Escapes.AUTO) == facts(Escapes.SHELL) == [(214, "22b1748764bd"), (520, "f36eda671ef5")]
    assert [length for length, _ in facts(Escapes.VERBATIM)] == [218, 530]


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("{{.Input}}", Reading.SAME),
        ("a \\ b", Reading.SAME),  # dash leaves what it does not know
        ("say \\n", Reading.KEPT),
        ('{{if eq .R \\"a\\"}}\\n{{end}}', Reading.SHELL),
        ('{{if eq .R \\"\\\\n\\"}}x{{end}}', Reading.QUOTES),  # both stages would break the string
    ],
)
def test_it_says_how_a_text_was_read(text: str, reading: Reading) -> None:
    assert resolve(text, "template", Escapes.AUTO).reading is reading


def test_a_config_that_cannot_be_read_is_the_most_broken() -> None:
    unreadable = compat.brokenness("- a: [\n", "config")
    assert unreadable > compat.brokenness("- a: \\\\\\\\n\n  b: '{{if}'\n" * 1000, "config") > 0
    assert compat.brokenness('- a: "b"\n', "config") == 0


def test_undoing_escapes_leaves_what_a_nix_string_cannot_hold() -> None:
    assert compat.undo_shell("\\0 \\00 \\0377 \\0101") == "\\0 \\00 \\0377 A"
    assert compat.undo_shell("\\0303\\0251") == "é"
