"""A text-to-image model of 1.5 MB that paints one colour, and the colours of a PNG.

It is a MiniT2I for stable-diffusion.cpp, the one kind that it has whose measures all follow from the weights and which
needs neither a text encoder nor a VAE. It predicts the finished picture: its last layer weighs nothing, so what comes
out is that layer's bias, whatever was asked for.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np

FILE = "picture.safetensors"
COLOUR = (192, 64, 32)

_WIDTH = 64
_TEXT = 1024  # what stable-diffusion.cpp takes for a prompt where there is no text encoder
_PATCH = 16
_FEED = 176  # 2.6667 times the width, in eights
_CHANNELS = 3


def make(path: Path, colour: tuple[int, int, int] = COLOUR) -> Path:
    """Write the model to `path` and return it; the same arguments always give the same bytes."""
    values = np.array(colour) / 127.5 - 1
    shapes = {
        "img_embedder.proj1.weight": (8, _CHANNELS, _PATCH, _PATCH),
        "img_embedder.proj2.weight": (_WIDTH, 8, 1, 1),
        "img_embedder.proj2.bias": (_WIDTH,),
        "mask_token": (1, 1, _TEXT),
        "txt_embedder.weight": (_WIDTH, _TEXT),
        "pooled_embedder.weight": (_WIDTH, _TEXT),
        "t_embedder.mlp.0.weight": (_WIDTH, 256),
        "t_embedder.mlp.0.bias": (_WIDTH,),
        "t_embedder.mlp.2.weight": (_WIDTH, _WIDTH),
        "t_embedder.mlp.2.bias": (_WIDTH,),
        "final_layer.norm_final.weight": (_WIDTH,),
        "final_layer.linear.weight": (_PATCH * _PATCH * _CHANNELS, _WIDTH),
        "final_layer.linear.bias": (_PATCH * _PATCH * _CHANNELS,),
        **_block("txt_preamble_blocks.0.", ""),
        **_block("double_blocks.0.", "img_"),
        **_block("double_blocks.0.", "txt_"),
    }
    head, data = {}, bytearray()
    for name, shape in sorted(shapes.items()):
        weights = np.zeros(shape, "<f4")
        if name == "final_layer.linear.bias":
            weights += np.tile(values, _PATCH * _PATCH)
        places = [len(data), len(data) + weights.nbytes]
        head[f"model.diffusion_model.model.net.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": places}
        data += weights.tobytes()
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _block(block: str, part: str) -> dict[str, tuple[int, ...]]:
    """The weights of one half of a transformer's block."""
    layers = {"qkv": (3 * _WIDTH, _WIDTH), "attn_proj": (_WIDTH, _WIDTH)}
    linear = {f"{part}{name}": shape for name, shape in layers.items()}
    feed = {f"{part}mlp.w1": (_FEED, _WIDTH), f"{part}mlp.w3": (_FEED, _WIDTH), f"{part}mlp.w2": (_WIDTH, _FEED)}
    norms = [f"{part}norm1", f"{part}norm2", "q_norm", "k_norm"]
    return {
        **{f"{block}{name}.weight": shape for name, shape in {**linear, **feed}.items()},
        **{f"{block}{name}.bias": shape[:1] for name, shape in linear.items()},
        **{f"{block}{name}.weight": (_WIDTH,) for name in norms},
    }


def colours(png: bytes) -> tuple[tuple[int, int], set[tuple[int, ...]]]:
    """Width and height of an 8-bit RGB picture, and the colours that it has."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, list[tuple[bytes, bytes]]()
    while place < len(png):
        (size,) = struct.unpack_from(">I", png, place)
        chunks.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + size]))
        place += 12 + size
    width, height, depth, kind = struct.unpack_from(">IIBB", dict(chunks)[b"IHDR"])
    assert (depth, kind) == (8, 2)
    packed = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    stride = 3 * width
    above, found = bytearray(stride), set[tuple[int, ...]]()
    for row in range(height):
        rule, *line = packed[row * (stride + 1) : (row + 1) * (stride + 1)]
        for at in range(stride):
            left, corner = (line[at - 3], above[at - 3]) if at >= 3 else (0, 0)
            line[at] = (line[at] + _predicted(rule, left, above[at], corner)) % 256
        above = bytearray(line)
        found |= set(zip(*[iter(line)] * 3, strict=True))
    return (width, height), found


def _predicted(rule: int, left: int, above: int, corner: int) -> int:
    """PNG's five filters (specification, section 9.2)."""
    if rule == 4:
        guess = left + above - corner
        return min((left, above, corner), key=lambda value: abs(guess - value))
    return (0, left, above, (left + above) // 2)[rule]
