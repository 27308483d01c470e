"""What may be shown of addresses and texts. What holds for any text stands in test_input_properties.py."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from aikit_nix.base import redact
from aikit_nix.base.redact import printable


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_hidden", set())


def test_every_character_that_is_no_text_is_escaped_once() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every)
    assert {unicodedata.category(c)[0] for c in shown} == {"L", "M", "N", "P", "S", "Z"}
    assert {c for c in shown if unicodedata.category(c)[0] == "Z"} == {" "}
    assert printable(shown) == shown
    assert (
        printable("\x1b]0;pwned\x07\x1b]52;c;cHduZWQ=\x07\x9b31m\x85\u2028\u202e\u2066\u200b")
        == r"\x1b]0;pwned\x07\x1b]52;c;cHduZWQ=\x07\x9b31m\x85\u2028\u202e\u2066\u200b"
    )


def test_a_hidden_secret_is_blanked_wherever_it_stands() -> None:
    redact.hide("hunter22")
    assert redact.without_secrets("a hunter22b") == "a ***b"
    assert redact.shown("they said: hunter22") == "they said: ***"
    assert redact.blank("https://h/hunter22/x") == "https://h/***/x"


def test_what_is_too_short_for_a_secret_blanks_no_message() -> None:
    redact.hide("")
    redact.hide("abc")
    assert redact.without_secrets("abcdef") == "abcdef"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://u:p@h/a?token=x or (oci://me@h/b)", "see https://***@h/a?token=*** or (oci://***@h/b)"),
        ("see 'HTTPS://u:p@h/a'", "see 'HTTPS://***@h/a'"),
        ("two\nlines\tand \x1b[31m", "two lines and \\x1b[31m"),
        ("u:p@h is no address", "u:p@h is no address"),
    ],
)
def test_a_text_from_elsewhere_is_one_line_with_its_addresses_blanked(text: str, shown: str) -> None:
    assert redact.shown(text) == shown


def test_a_message_from_elsewhere_is_cut() -> None:
    assert len(redact.shown("x" * 100_000)) == 1000
    assert len(redact.blank("https://h/" + "x" * 100_000)) == 1000


@pytest.mark.parametrize("mark", ["/", "?", "#", "@", ":", "?a=b&"])
def test_a_password_that_is_no_url_is_blanked_too(mark: str) -> None:
    """Who forgot to escape it sees the error for it."""
    assert redact.blank(f"https://me:hunter{mark}22@h/p?x=1#y") == "https://***@h/p?x=1"
    assert "hunter" not in redact.shown(f"no such host: https://me:hunter{mark}22@h/p")


def test_an_address_without_a_scheme_is_one_too() -> None:
    assert redact.blank("me:pw@h/a?from=http://p@other/&token=x") == "***@h/a?from=http://***@other/&token=***"
    assert redact.blank("registry.example:5000/a@sha256:ab") == "registry.example:5000/a@sha256:ab"


@pytest.mark.parametrize(
    ("url", "blanked"),
    [
        ("https://h/https://u:p@other/a", "https://h/https://***@other/a"),
        ("https://h/a?from=http://p@other/a", "https://h/a?from=http://***@other/a"),
        ("https://h/p?x=1", "https://h/p?x=1"),
        ("https://u:p@h:8/p", "https://***@h:8/p"),
        ("https://u:p/w@h/p", "https://***@h/p"),
        ("https://h/p?sig=a&Signature=b&x=c&api_key=d#e", "https://h/p?sig=***&Signature=***&x=c&api_key=***"),
        ("oci://h:5000/a@sha256:ab", "oci://h:5000/a@sha256:ab"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://a\x1b[31m\n/", "http://a\\x1b[31m /"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, blanked: str) -> None:
    assert redact.blank(url) == blanked


@pytest.mark.parametrize(
    "key",
    [
        *(
            "jwt",
            "pwd",
            "passwd",
            "password",
            "access_key",
            "private_key",
            "session",
            "credential",
            "Policy",
            "sas",
            "sig",
        ),
        *(
            "X-Amz-Signature",
            "X-Amz-Credential",
            "x-goog-signature",
            "api_key",
            "apikey",
            "key",
            "token",
            "access_token",
        ),
        *(
            "Key-Pair-Id",
            "AWSAccessKeyId",
            "Authorization",
            "auth",
            "client_secret",
            "%74oken",
            "sessionid",
            "id-token",
        ),
    ],
)
@pytest.mark.parametrize("mark", ["?", "&", ";", "#"])
def test_one_list_says_which_keys_are_secret(key: str, mark: str) -> None:
    address = f"https://h/p{'?a=b' if mark == '&' else ''}{mark}{key}=hunter2"
    assert redact.secret_key(address) == key
    assert "hunter2" not in redact.blank(address)


@pytest.mark.parametrize("key", ["author", "download", "monkey", "keyword", "version", "design", "passage", "x"])
def test_other_keys_are_none(key: str) -> None:
    assert redact.secret_key(f"https://h/p?{key}=v") is None
    assert redact.blank(f"https://h/p;{key}=v?{key}=v") == f"https://h/p;{key}=v?{key}=v"


def test_a_text_costs_no_more_than_its_size() -> None:
    """A reason phrase of 60 kB took 44 s; pytest's own end of the world is what stops this one."""
    for text in ("a" * 300_000, "a+" * 150_000, "a://" * 60_000, "?token" * 20_000, "&" * 100_000):
        assert len(redact.shown(text)) <= 1000
        assert len(redact.blank(text)) <= 1000
