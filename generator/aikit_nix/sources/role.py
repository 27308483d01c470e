"""What a GGUF is for: a model, or a part of another."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a GGUF is for; the value stands in aikit.lock."""

    MODEL = "model"
    PROJECTOR = "projector"
    ADAPTER = "adapter"
    DRAFT = "draft"
    VOCODER = "vocoder"
    OTHER = "other"

    @property
    def words(self) -> str:
        """It in a message."""
        return _ROLES[self]


_ROLES = {
    Role.MODEL: "a model",
    Role.PROJECTOR: "the projector (mmproj) of another model, its image or audio encoder",
    Role.ADAPTER: "an adapter (LoRA) of another model",
    Role.DRAFT: "a draft for another model",
    Role.VOCODER: "a vocoder, which turns another model's tokens into sound",
    Role.OTHER: "no model (a vocabulary, an importance matrix or a control vector)",
}
# llama.cpp's src/llama-arch.cpp, and the architecture that control vectors have
_ARCHITECTURES = {
    "clip": Role.PROJECTOR,
    "eagle3": Role.DRAFT,
    "dflash": Role.DRAFT,
    "gemma4-assistant": Role.DRAFT,
    "wavtokenizer-dec": Role.VOCODER,
    "controlvector": Role.OTHER,
}
_TYPES = {"mmproj": Role.PROJECTOR, "adapter": Role.ADAPTER, "imatrix": Role.OTHER, "vocab": Role.OTHER}


def role_of(kind: str | None, architecture: str | None) -> Role:
    """By `general.type` and `general.architecture`."""
    return _TYPES.get(kind or "") or _ARCHITECTURES.get(architecture or "", Role.MODEL)
