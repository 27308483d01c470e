"""A llama-architecture GGUF of about 260 KB that answers one fixed sentence.

The network is a table: attention and feed-forward weigh nothing, so what comes out depends on the last token
alone. Every piece of the sentence has a direction of its own in the embedding, and the output matrix maps
it to the next piece; every other token (all of them spell bytes, so any text can be a prompt) leads to the
first piece. The logits are so far apart that the answer stands at any temperature, and it is always valid
UTF-8.
"""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np

SENTENCE = "This tiny model always answers with the same sentence."

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

_WIDTH = 64
_LOGIT = 10.0


def make(
    path: Path,
    sentence: str = SENTENCE,
    *,
    name: str = "tiny",
    context: int = 4096,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write the model to `path` and return it; the same arguments always give the same bytes.

    `context` is the context length in tokens that the file's header claims. The sentence may have up to 62
    words; a word may stand in it once only.
    """
    pieces = re.findall(r"\s*\S+", sentence)
    if len(set(pieces)) != len(pieces) or not 0 < len(pieces) < _WIDTH - 1:
        raise ValueError(f"a sentence of 1 to {_WIDTH - 2} different words is needed, not {sentence!r}")

    control, byte, normal = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
    vocabulary = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", control), ("</s>", control)]
    vocabulary += [(f"<0x{value:02X}>", byte) for value in range(256)]
    first, end = len(vocabulary), 2
    vocabulary += [(piece.replace(" ", "\u2581"), normal) for piece in pieces]

    # Row i of `state` is the direction of token i, column c of `follow` the logits after a token of
    # direction c.
    state = np.zeros((len(vocabulary), _WIDTH), dtype=np.float32)
    follow = np.zeros((len(vocabulary), _WIDTH), dtype=np.float32)
    state[:first, 0] = 1.0
    follow[first, 0] = _LOGIT
    for index in range(len(pieces)):
        state[first + index, index + 1] = 1.0
        follow[first + index + 1 if index + 1 < len(pieces) else end, index + 1] = _LOGIT

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(_WIDTH // 2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_token_types([kind for _, kind in vocabulary])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    ones, zeros = np.ones(_WIDTH, dtype=np.float32), np.zeros((_WIDTH, _WIDTH), dtype=np.float32)
    writer.add_tensor("token_embd.weight", state)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", follow)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    for tensor in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{tensor}.weight", zeros)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
