"""Which of the image's files are models to serve, and which belong to another: projectors, adapters, drafts.

Known by the GGUF's own metadata (`general.type`, `general.architecture`), which `lock` keeps; a file that nobody has seen
counts as a model. Both engines ask here, so that no part of a model is served as one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aikit_nix.aikitfile.localai_config import FILES, ConfigEntry
from aikit_nix.aikitfile.types import Aikitfile, Model
from aikit_nix.base.errors import Diagnostic, Severity
from aikit_nix.base.redact import printable
from aikit_nix.sources import MODELS
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.names import first_shard
from aikit_nix.sources.role import Role

# What in the config of a model names such a file
KEYS = {Role.PROJECTOR: "mmproj", Role.ADAPTER: "lora_adapter", Role.DRAFT: "draft_model"}
# What stands beside a model in a repository: a tokenizer, a licence, weights of other formats
_SIDE = (
    *(".json", ".txt", ".md", ".jinja", ".tmpl", ".model", ".py", ".yaml", ".yml", ".tiktoken"),
    *(".safetensors", ".bin", ".pt", ".pth", ".onnx", ".ckpt", ".h5", ".msgpack", ".npz", ".imatrix", ".dat"),
    *(".png", ".jpg", ".svg", ".pdf"),
)


@dataclass(frozen=True)
class Unconfigured:
    """The models of an aikitfile that have no config: `served`, and the `companions` with their roles."""

    served: tuple[Model, ...]
    companions: tuple[tuple[Model, Role], ...]


def sort(aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> Unconfigured:
    """Models and what belongs to them; the later shards of a model and side files are neither."""
    served, companions = [], []
    for model in aikitfile.models:
        facts = headers.get(model.path)
        name = model.path.rpartition("/")[2]
        if facts and facts.role is not Role.MODEL:
            companions.append((model, facts.role))
        elif first_shard(name) == name and (facts or not name.lower().endswith(_SIDE)):
            served.append(model)
    return Unconfigured(tuple(served), tuple(companions))


def unserved(aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> Iterator[Diagnostic]:
    """An error for each file that without a config would be served as a model, and is none."""
    for model, role in sort(aikitfile, headers).companions:
        name = model.path.removeprefix(MODELS + "/")
        mend = f"name it as `{KEYS[role]}` in the config of its model" if role in KEYS else "leave it out"
        message = f"{name} is {role.words}, and is no model to serve: {mend}"
        yield Diagnostic(Severity.ERROR, "companion", printable(message), model.source.at)


def misnamed(entries: tuple[ConfigEntry, ...], headers: Mapping[str, Facts]) -> Iterator[Diagnostic]:
    """An error where a config names a file for something that it is not."""
    for entry in entries:
        for value in entry.files():
            facts = headers.get(f"{MODELS}/{value.node.text}")
            wanted = FILES.get(value.key)
            if facts is None or wanted is None or facts.role in wanted:
                continue
            message = f"config {entry.name}: {value.key} names {value.node.text}, which is {facts.role.words}"
            yield Diagnostic(Severity.ERROR, "companion", printable(message), value.at)


def unnamed(
    aikitfile: Aikitfile, entries: tuple[ConfigEntry, ...], headers: Mapping[str, Facts], *, models: bool
) -> Iterator[Diagnostic]:
    """A warning for each companion that the image has and no config names; and for each of the `models`, if asked for."""
    named = {f"{MODELS}/{value.node.text}" for entry in entries for value in entry.files()}
    files = sort(aikitfile, headers)
    for model, role in [*((model, Role.MODEL) for model in files.served if models), *files.companions]:
        if model.path not in named:
            name = model.path.removeprefix(MODELS + "/")
            key = KEYS.get(role, "parameters.model")
            message = (
                f"nothing in the config names {name}, {role.words} (`{key}`): the image has it and does not use it"
            )
            yield Diagnostic(Severity.WARNING, "unused-model", printable(message), model.source.at)
