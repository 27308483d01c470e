"""The files that are shipped, and texts made of templates."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from aikit_nix.base import data


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data, "TEMPLATES", tmp_path)
    return tmp_path


def test_the_library_and_the_templates_are_there() -> None:
    assert (data.NIX / "image.nix").is_file()
    assert (data.TEMPLATES / "flake.nix.j2").is_file()


def test_a_value_that_nobody_gave_is_an_error_and_no_gap_in_the_text(templates: Path) -> None:
    (templates / "x").write_text("image: {{ image }}\n{% if other %}x{% endif %}\n")
    with pytest.raises(jinja2.UndefinedError):
        data.template("x", image="a")
    with pytest.raises(jinja2.UndefinedError):
        data.template("x", other=True)


def test_a_value_as_json_stays_a_value(templates: Path) -> None:
    (templates / "x").write_text("a: {{ a | tojson }}\n")
    text = data.template("x", a="ü: \"x\"\n- {{ b }} & '${c}'")
    assert text.count("\n") == 1
    assert text.startswith('a: "ü: \\"x\\"\\n- {{ b }}')


def test_lines_are_as_in_the_template_but_for_those_of_its_own_words(templates: Path) -> None:
    (templates / "x").write_text("a\n  {% for n in names %}\n  {{ n }} <&>\n  {% endfor %}\n\nend\n")
    assert data.template("x", names=["<b>", "c"]) == "a\n  <b> <&>\n  c <&>\n\nend\n"
