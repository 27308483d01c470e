"""What names may become paths in the image: other people chose them."""

from __future__ import annotations

import pytest

from aikit_nix.base.errors import RefusedError
from aikit_nix.sources import names


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("m", None),
        ("org/model v1.gguf", None),
        ("é" * 125, None),
        ("é" * 126, "a part of more than 250 bytes"),
        ("/m", "begins with `/`"),
        ("a/../m", "holds `..`"),
        ("a//m", "empty part"),
        (".wh.m", "begins with `.wh.`, by which layers remove files"),
        ("a/.wh..wh..opq", "begins with `.wh.`"),
        ("a.wh.m", None),
        ("a\nb", "U+000A"),
        ("a\x9bb", "U+009B"),
        ("a\ud800b", "U+D800"),
        ("a/" * 1100, "has more than 2048 bytes"),
    ],
)
def test_a_name_that_cannot_be_a_path_says_why(name: str, problem: str | None) -> None:
    found = names.name_problem(name)
    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize(
    "path", ["../m", "/m", "a/./m", "a\\..\\m", "a//m", "", ".", "a/", "m\0", "x" * 256, "a/.wh.m", ".wh.a/m"]
)
def test_a_path_of_a_stranger_stays_below_its_folder(path: str) -> None:
    with pytest.raises(RefusedError):
        names.relative_path(path)


def test_a_path_of_a_stranger_is_kept_as_it_is() -> None:
    for path in ("m.gguf", "a/b c/é~#.gguf", "..a/b.."):
        assert names.relative_path(path) == path


def test_the_shards_of_a_gguf_follow_from_any_of_them() -> None:
    three = [f"m-0000{number}-of-00003.GGUF" for number in (1, 2, 3)]
    assert names.shards(three[0]) == three
    assert {names.first_shard(name) for name in three} == {three[0]}
    for other in ("m.gguf", "m-00001-of-00003.bin", "m-1-of-3.gguf", "m-00001-of-٠٠٠٠٣.gguf"):
        assert names.shards(other) == [other]
        assert names.first_shard(other) == other


@pytest.mark.parametrize("parts", ["00000", "01001", "99999"])
def test_an_absurd_number_of_shards_is_refused(parts: str) -> None:
    with pytest.raises(RefusedError, match=f"claims to have {int(parts)} parts"):
        names.shards(f"m-00001-of-{parts}.gguf")


def test_a_scheme_is_told_from_a_path() -> None:
    assert [names.scheme(text) for text in ("HTTPS://h/m", "a/b:c", "./http://x", "c:m", ":m", "")] == [
        "https:", None, None, "c:", None, None
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["é" * 127 + "x", "a b"])
def test_a_file_may_be_called_so(file: str) -> None:
    assert names.file_name(file) == file


@pytest.mark.parametrize("file", ["", ".", "..", "a/b", "é" * 128, "a\nb", "\x7f", "\u2028", "\ud800"])
def test_no_file_can_be_called_so(file: str) -> None:
    with pytest.raises(RefusedError):
        names.file_name(file)


def test_a_path_has_an_end() -> None:
    assert names.too_long("é" * 1024) is None
    assert names.too_long("a" * 2048) is None
    assert names.too_long("é" * 1024 + "a") == names.too_long("a" * 2049) == "has more than 2048 bytes"


def test_a_file_that_would_remove_another_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"begins with `\.wh\.`"):
        names.file_name(".wh.m.gguf")
