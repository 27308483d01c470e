"""A blob before it is sent: bytes and files one after the other, and never its last bytes where they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.registry.blob import Blob, Content
from aikit_nix.registry.reference import digest_of
from support.pushes import MIB


def blob(parts: tuple[bytes | Path, ...], whole: bytes) -> Blob:
    return Blob(digest_of(whole), len(whole), "the model", parts)


def test_a_blob_is_bytes_and_files_from_any_place_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(whole := os.urandom(MIB))
    whole = b"before" + whole + b"behind"
    made = blob((b"before", tmp_path / "file", b"", b"behind"), whole)
    for start, count in ((0, len(whole)), (3, 10), (6, MIB), (7 + MIB, 5), (len(whole), 0)):
        told: list[int] = []
        with Content(made) as content:
            assert b"".join(content.blocks(start, count, told.append)) == whole[start : start + count]
        assert sum(told) == count


@pytest.mark.parametrize("chunk", [MIB - 1, 100_000, MIB])
def test_the_last_bytes_of_a_wrong_blob_are_never_given(tmp_path: Path, chunk: int) -> None:
    """However it is cut: no registry can take it for a whole one then."""
    whole = os.urandom(MIB)
    (tmp_path / "file").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    given = 0
    with (
        Content(blob((tmp_path / "file",), whole)) as content,
        pytest.raises(AikitError, match=r"the model gives sha256:.* it is damaged"),
    ):
        for start in range(0, MIB, chunk):
            for block in content.blocks(start, min(chunk, MIB - start)):
                given += len(block)
    assert given < MIB


def test_a_file_that_became_shorter_or_went_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    with Content(blob((tmp_path / "file",), b"longer")) as content:
        with pytest.raises(AikitError, match="the model ends after 5 of 6 bytes"):
            list(content.blocks(0, 6))
        (tmp_path / "file").unlink()
        with pytest.raises(AikitError, match=r"cannot read .*/file"):
            list(content.blocks(0, 6))
    with pytest.raises(AikitError, match="the model is not on this machine"):
        Content(Blob("sha256:0", 1, "the model", None))
