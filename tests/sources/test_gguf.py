"""The GGUF header, against files that the PyPI package `gguf` writes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from aikit_nix.aikitfile.types import Pin
from aikit_nix.base import typed_json
from aikit_nix.models.entry import File
from aikit_nix.sources import gguf


def write(
    path: Path, architecture: str = "qwen2", endianness: reference.GGUFEndian = reference.GGUFEndian.LITTLE
) -> Path:
    writer = reference.GGUFWriter(path, architecture, endianess=endianness)
    writer.add_name("Qwen2 ½")
    writer.add_array("tokenizer.ggml.tokens", [f"token {n}" for n in range(1000)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 1000)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_float64("x.y", 1.0)
    writer.add_context_length(32768)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_what_a_model_says_about_itself(tmp_path: Path) -> None:
    with write(tmp_path / "m.gguf").open("rb") as stream:
        header = gguf.read(stream)
    assert header == gguf.Header(
        "qwen2", "Qwen2 ½", 32768, "{{ messages }}", least=(tmp_path / "m.gguf").stat().st_size
    )


def test_a_big_endian_file_is_named_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", endianness=reference.GGUFEndian.BIG)
    with path.open("rb") as stream, pytest.raises(gguf.NotGgufError, match="big-endian"):
        gguf.read(stream)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    data = write(tmp_path / "m.gguf").read_bytes()
    for length in [*range(120), len(data) // 2, len(data) - 1]:
        with pytest.raises(gguf.NotGgufError):
            gguf.read(io.BytesIO(data[:length]))


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("keys", "body"),
    [
        (2**63, b""),
        (1, struct.pack("<Q", 2**63)),
        (1, key(b"a", 8, struct.pack("<Q", 2**40))),
        (1, key(b"a", 9, struct.pack("<IQ", 4, 2**62))),
        (1, key(b"a", 9, struct.pack("<IQ", 8, 2**62))),
        (1, key(b"a", 9, struct.pack("<IQ", 9, 1))),
        (1, key(b"a", 99, b"")),
    ],
)
def test_absurd_lengths_are_refused_at_once(keys: int, body: bytes) -> None:
    with pytest.raises(gguf.NotGgufError):
        gguf.read(io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, 0, keys) + body))


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(gguf.NotGgufError):
        gguf.read(io.BytesIO(b"GGUF" + struct.pack("<IQQ", version, 0, 0)))


@pytest.mark.parametrize(("kind", "code", "number"), [(10, "Q", 1 << 32), (11, "q", -1), (4, "I", (1 << 32) - 1)])
def test_what_aikit_lock_could_not_hold_is_no_number(kind: int, code: str, number: int) -> None:
    values = (
        (b"general.architecture", 8, struct.pack("<Q", 1) + b"a"),
        (b"a.context_length", kind, struct.pack("<" + code, number)),
    )
    body = b"".join(key(*value) for value in values)
    header = gguf.read(io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + body))
    assert header.context_length == (number if code == "I" else None)
    pin = Pin("0" * 64, size=0, gguf=header.facts)
    assert typed_json.decode(typed_json.pack(File.of("/models/a", pin)), File).pinned() == ("/models/a", pin)


def test_what_is_empty_or_of_another_type_says_nothing() -> None:
    text = struct.pack("<Q", 1) + b"a"
    values = (
        (b"general.architecture", 8, text),
        (b"general.name", 8, struct.pack("<Q", 0)),
        (b"general.basename", 8, text),
        (b"general.type", 4, struct.pack("<I", 1)),
        (b"a.context_length", 8, text),
        (b"a.pooling_type", 4, struct.pack("<I", 0)),
    )
    body = b"".join(key(*value) for value in values)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + body
    header = gguf.read(io.BytesIO(data))
    assert header == gguf.Header("a", "a", None, None, None, 0, None, len(data))


def test_a_later_shard_says_which_of_its_weights_stand_in_memory_twice(tmp_path: Path) -> None:
    writer = reference.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    for name in ("output.weight", "blk.0.ffn_up.weight"):
        writer.add_tensor(name, np.zeros((8, 18), dtype=np.uint8), raw_dtype=reference.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with (tmp_path / "m-00002-of-00002.gguf").open("rb") as stream:
        assert gguf.read(stream).shape == gguf.Shape(repacked=8 * 18)
