"""The machine code of LocalAI's llama-cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from nixpkgs import instructions, test_localai
from nixpkgs.toolchain import Nixpkgs


@pytest.mark.parametrize("runtime", instructions.RUNTIMES)
def test_the_instructions_of_a_build(localai_nixpkgs: Nixpkgs, runtime: str) -> None:
    drv = test_localai.engine(localai_nixpkgs, "x86_64-linux", runtime, [], "parts.llama-cpp")
    built = Path(localai_nixpkgs.run(["nix-store", "--realise", drv]).strip())
    instructions.require(built / "bin/llama-cpp-grpc-server", runtime)
