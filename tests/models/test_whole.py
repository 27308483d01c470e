"""A lock is whole: no collisions (tests/models/test_locking.py), and every file of a model."""

from __future__ import annotations

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base.errors import AikitError
from aikit_nix.models import whole
from aikit_nix.models.entry import Entry, Origin
from aikit_nix.models.lock import Lock


def check(*names: str) -> None:
    aikitfile, _ = parse(
        b"apiVersion: v1alpha1\nmodels: [{name: m, source: folder}]\nconfig: '- {name: m}'\n", "aikitfile.yaml"
    )
    files = tuple((f"/models/folder/{name}", Pin("0" * 64)) for name in names)
    whole.check(aikitfile, Lock.of("aikit.lock", [Entry("m", "folder", Origin("local"), files)]))


def test_all_files_of_a_model_are_there() -> None:
    check("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "other.gguf")
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        with pytest.raises(AikitError, match=rf"`m` has {name}, and not m-0000[12]-of-00002.gguf of the same model"):
            check(name, "other.gguf")
