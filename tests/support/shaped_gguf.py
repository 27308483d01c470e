"""GGUFs of any shape whose weights are nothing: what they take, not what they say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class Shape:
    """A llama: its width, the width of its feed-forward part, its layers, heads, heads of keys and values, and tokens."""

    width: int
    inner: int
    layers: int
    heads: int
    shared: int
    tokens: int


def make(path: Path, shape: Shape, context: int = 131072) -> Path:
    """Write the model, half of it in Q4_0, which llama.cpp rewrites where the processor has AVX2, and half in 16 bits."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.shared)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    words = [("<unk>", 2), ("<s>", 3), ("</s>", 3)] + [(f"<0x{value:02X}>", 6) for value in range(256)]
    words += [(f"\u2581word{number}", 1) for number in range(shape.tokens - len(words))]
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([kind for _, kind in words])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def halves(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, np.zeros((rows, columns), dtype=np.float16))

    def quarters(name: str, rows: int, columns: int) -> None:
        blocks = np.zeros((rows, columns // 32 * 18), dtype=np.uint8)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    ones = np.ones(shape.width, dtype=np.float32)
    writer.add_tensor("output_norm.weight", ones)
    halves("token_embd.weight", len(words), shape.width)
    halves("output.weight", len(words), shape.width)
    rows = shape.shared * shape.width // shape.heads
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        writer.add_tensor(f"{block}attn_norm.weight", ones)
        writer.add_tensor(f"{block}ffn_norm.weight", ones)
        halves(f"{block}attn_q.weight", shape.width, shape.width)
        halves(f"{block}attn_k.weight", rows, shape.width)
        halves(f"{block}attn_v.weight", rows, shape.width)
        halves(f"{block}attn_output.weight", shape.width, shape.width)
        quarters(f"{block}ffn_gate.weight", shape.inner, shape.width)
        quarters(f"{block}ffn_up.weight", shape.inner, shape.width)
        quarters(f"{block}ffn_down.weight", shape.width, shape.inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
