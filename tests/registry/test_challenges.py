"""What a 401 asks for, in the words of real registries and of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aikit_nix.registry import challenges

BEARER = 'Bearer realm="https://auth.example.com/token",service="registry"'
TAKEN = ("bearer", {"realm": "https://auth.example.com/token", "service": "registry"})
BASIC = ("basic", {"realm": "Registry Realm"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (BEARER, [TAKEN]),
        (f'{BEARER}, Basic realm="Registry Realm"', [TAKEN, BASIC]),
        (f'Basic realm="Registry Realm",{BEARER}', [BASIC, TAKEN]),
        (f', ,Basic realm="Registry Realm" , , {BEARER},', [BASIC, TAKEN]),
        (f"Negotiate, {BEARER}", [("negotiate", {}), TAKEN]),
        (f"Negotiate YII=, {BEARER}", [("negotiate", {}), TAKEN]),
        (f"NTLM TlRMTVNTUAAB,{BEARER}", [("ntlm", {}), TAKEN]),
        ("Basic", [("basic", {})]),
        ("BEARER REALM=https://a/t", [("bearer", {"realm": "https://a/t"})]),
        ('bearer realm = "a" , Service= "b"', [("bearer", {"realm": "a", "service": "b"})]),
        (
            'Bearer realm="r",scope="repository:a/b:pull,push repository:c:pull",error="invalid_token"',
            [("bearer", {"realm": "r", "scope": "repository:a/b:pull,push repository:c:pull", "error": "invalid_token"})],
        ),
        (r'Basic realm="a \"Bearer realm=x\", \\ b"', [("basic", {"realm": r'a "Bearer realm=x", \ b'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("", []),
        ('realm="of nothing"', []),
    ],
)  # fmt: skip
def test_parse(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.scheme, dict(each.parameters)) for each in challenges.parse(header)] == expected


@given(st.text(alphabet='Bearr ls="\\,;=x:/', max_size=60))
def test_anything_is_read_to_its_end(header: str) -> None:
    assert all(each.scheme for each in challenges.parse(header))


def test_a_long_header_takes_no_long_time() -> None:
    assert len(list(challenges.parse('a="' + "\\" * 60_000))) <= 1
