"""The servers that an image can have: what each is told, for an aikitfile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import Diagnostic
from aikit_nix.engines.memory import Memory
from aikit_nix.sources.gguf import Facts

CONFIG_PATH = "/config.yaml"


class Engine(StrEnum):
    """The server in the image."""

    LOCALAI = "localai"
    LLAMA_SERVER = "llama-server"


@dataclass(frozen=True)
class Launch:
    """How an image starts its server.

    `entrypoint` are the arguments that belong to the image, behind the program's name; `cmd` are those that a user's own
    replace (`docker run IMAGE ARGS`). `probe` is where the server says whether it is well: its port, a path that answers 200, and
    the option and the variable that name another port. `files` are texts of the image by absolute path, besides the aikitfile's own.
    `warnings` say what of the aikitfile could not be kept. `memory` is None where the models' headers do not tell.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    probe: tuple[str, str, str, str] = ("8080", "/health", "--port", "LLAMA_ARG_PORT")
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()
    memory: Memory | None = None


def launch(engine: Engine, aikitfile: Aikitfile, headers: Mapping[str, Facts], *, drop: bool = False) -> Launch:
    """What the engine is told. `headers` are what is known of the GGUFs' headers, by the model's path in the image;
    `drop` leaves out, with a warning, what it cannot keep of the config and changes the answers.

    Raises AikitError where the engine could not serve the aikitfile's config.
    """
    from aikit_nix.engines import localai
    from aikit_nix.engines.llama_server import launch as llama_server

    match engine:
        case Engine.LOCALAI:
            return localai.launch(aikitfile, headers)
        case Engine.LLAMA_SERVER:
            return llama_server.launch(aikitfile, headers, drop=drop)
    assert_never(engine)
