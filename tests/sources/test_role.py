"""What a GGUF is for; with real headers in tests/sources/test_judge.py."""

from __future__ import annotations

import pytest

from aikit_nix.sources.role import Role, role_of


@pytest.mark.parametrize(
    ("kind", "architecture", "role"),
    [
        (None, None, Role.MODEL),
        ("model", "llama", Role.MODEL),
        ("mmproj", "llama", Role.PROJECTOR),
        ("model", "clip", Role.PROJECTOR),
        ("adapter", "llama", Role.ADAPTER),
        ("model", "eagle3", Role.DRAFT),
        ("model", "wavtokenizer-dec", Role.VOCODER),
        ("imatrix", "llama", Role.OTHER),
        ("unheard of", "unheard of", Role.MODEL),
    ],
)
def test_type_and_architecture_say_it(kind: str | None, architecture: str | None, role: Role) -> None:
    assert role_of(kind, architecture) is role
    assert role.words
