"""A conversation with a server that speaks OpenAI's API, or should."""

from __future__ import annotations

import pytest

from aikit_nix.errors import AikitError
from aikit_nix.image import chat


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    text = ': comment\n\ndata: {"a": "ü"}\r\n\r\nevent: x\ndata:two\n\ndata: [DONE]\n\ndata: never\n'.encode()
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(chat.events(blocks)) == ['{"a": "ü"}', "two"]
    with pytest.raises(AikitError, match="without an end"):
        list(chat.events([b"data: ", bytes(2 << 20)]))
