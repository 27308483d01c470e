"""What docs/pins.md shows is what the tool does, with a stand-in for Hugging Face."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.hugging_face import HuggingFace
from support.locks import done

PAGE = (Path(__file__).resolve().parents[1] / "docs/pins.md").read_text()

pytestmark = pytest.mark.usefixtures("nix")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(text, str)
    return text


def test_the_session_and_the_lock(tmp_path: Path, hub: HuggingFace, tiny_model: Path) -> None:
    card = {"license": "mit", "base_model": "acme/tiny"}
    files = {"tiny.gguf": tiny_model.read_bytes(), "README.md": b"x"}
    hub.repository("acme/tiny-GGUF", card=card).commit(files)
    (tmp_path / "aikitfile.yaml").write_text(block("yaml aikitfile"))
    session = block("console")
    commands = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
    assert len(commands) == 2
    said = "".join(f"$ {command}\n{done(tmp_path, *shlex.split(command)[1:])}" for command in commands)
    assert said == session
    assert (tmp_path / "aikit.lock").read_text() == block("json")
    said = done(tmp_path, "fetch")
    assert "wrote aikit.lock: what the bytes say" in said
    assert '"layer"' in (tmp_path / "aikit.lock").read_text()
