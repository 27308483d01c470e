"""The strict readers of tars and JSON, for any bytes: what they take, others read alike. `make fuzz` runs these for long."""

from __future__ import annotations

import io
import json
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from aikit_nix.base import tar, typed_json
from aikit_nix.base.tar import MemberKind
from support import tars

NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0/"), min_size=1, max_size=12)
CONTENT = st.binary(max_size=600)
PIECES = st.one_of(
    st.builds(tars.file, NAMES, CONTENT),
    st.builds(tars.raw, st.binary(max_size=40), st.sampled_from([b"x", b"g", b"X"])),
    st.builds(
        tars.records, st.dictionaries(st.sampled_from(["path", "size", "comment", "mtime", "x"]), NAMES, max_size=2)
    ),
    st.builds(tars.long, st.binary(max_size=20), st.sampled_from([b"L", b"K"])),
    st.sampled_from([bytes(512), *tars.tricks().values()]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 13), st.binary(min_size=1, max_size=13)), max_size=3)


@given(st.lists(PIECES, max_size=5), CHANGES, st.booleans())
def test_a_tar_that_is_read_is_read_alike(pieces: list[bytes], changes: list[tuple[int, bytes]], seeks: bool) -> None:
    data = bytearray(b"".join(pieces) + bytes(1024))
    for at, new in changes:
        at %= len(data)
        data[at : at + len(new)] = new[: len(data) - at]
    try:
        reader = tar.TarReader(io.BytesIO(data), seeks=seeks)
        found = [(each.name, each.kind, each.size, each.link, b"".join(reader.content())) for each in reader]
    except ValueError as said:
        assert str(said)
        return
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as other:
        for (name, kind, size, link, content), member in zip(found, other.getmembers(), strict=True):
            assert (name, size) == (member.name, member.size)
            assert kind is (MemberKind.FILE if member.isreg() else MemberKind(member.type))
            if kind in (MemberKind.LINK, MemberKind.HARD_LINK):
                assert link == member.linkname
            if kind is MemberKind.FILE:
                assert content == (other.extractfile(member) or io.BytesIO()).read()


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)


@given(st.one_of(VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)), CHANGES)
def test_json_that_is_read_is_what_it_says(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, new in changes:
        at %= len(data) + 1
        data = data[:at] + new + data[at + len(new) :]
    try:
        value = typed_json.parse(data)
    except ValueError:
        return
    assert value == json.loads(data.decode())
    assert typed_json.parse(json.dumps(value).encode()) == value
