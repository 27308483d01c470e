"""The HTTP client as tests use it."""

from __future__ import annotations

import pytest

from aikit_nix.http.client import Client, HttpError, Timeouts

TIMEOUTS = Timeouts(connect=5, read=0.5, answer=1, attempts=3, first_wait=0.01, longest_wait=7)

TOKEN = "hf_abcdefghijklmnop"


def refused(web: Client, url: str, **arguments: object) -> HttpError:
    with pytest.raises(HttpError) as raised:
        web.get(url, **arguments)  # type: ignore[arg-type]
    assert "\n" not in raised.value.message
    return raised.value
