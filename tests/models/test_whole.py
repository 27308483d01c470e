"""A lock is whole: no collisions (tests/models/test_locking.py), and every file of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.errors import AikitError
from aikit_nix.models import whole
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock
from support.hugging_face import HuggingFace
from support.locks import refused, write


def check(*names: str) -> None:
    aikitfile, _ = parse(
        b"apiVersion: v1alpha1\nmodels: [{name: m, source: folder}]\nconfig: '- {name: m}'\n", "aikitfile.yaml"
    )
    files = tuple((f"/models/folder/{name}", Pin("0" * 64)) for name in names)
    whole.check(aikitfile, Lock.of("aikit.lock", [Entry.of("m", "folder", Origin("local"), files)]))


def test_all_files_of_a_model_are_there() -> None:
    check("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "other.gguf")
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        with pytest.raises(AikitError, match=rf"`m` has {name}, and not m-0000[12]-of-00002.gguf of the same model"):
            check(name, "other.gguf")


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize("number", [1, 2])
def test_an_absurd_number_of_shards_is_refused_by_name(
    tmp_path: Path, hub: HuggingFace, model: bytes, number: int
) -> None:
    name = f"m-0000{number}-of-99999.gguf"
    hub.repository().commit({name: model})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(model)
    for source in ("huggingface://ns/repo", "folder", f"https://h.example/{name}"):
        write(tmp_path, ("m", source), sha256="1" * 64 if source.endswith(name) else None)
        assert "claims to have 99999 parts" in refused(tmp_path, "lock")
    assert "claims to have 99999 parts" in refused(tmp_path, "gen", "--elsewhere", "--engine", "llama-server")
