"""The machine code of LocalAI's llama-cpp: each runtime has its instructions, and no others."""

from __future__ import annotations

import re
import subprocess

import pytest

from nixpkgs import test_localai
from nixpkgs.toolchain import Nixpkgs

# objdump prints an instruction as `address: TAB mnemonic operands`.
AVX512 = re.compile(r"%zmm|%k[1-7]\b|\{%k[1-7]\}")
FMA = re.compile(r"\tvf(n?madd|n?msub)\w+ ")
# Integers of 256 bits are AVX2; AVX has only floating point, and moves.
AVX2 = re.compile(r"\tv(p(?!ermilp|erm2f128|extr|insr|test)\w+|broadcasti128|inserti128|extracti128) .*%ymm")


@pytest.mark.parametrize(
    ("runtime", "absent", "present"),
    [("avx", [AVX2, FMA, AVX512], []), ("avx2", [AVX512], [AVX2, FMA]), ("avx512", [], [AVX2, FMA, AVX512])],
)
def test_the_instructions_of_a_build(
    localai_nixpkgs: Nixpkgs, runtime: str, absent: list[re.Pattern[str]], present: list[re.Pattern[str]]
) -> None:
    drv = test_localai.engine(localai_nixpkgs, "x86_64-linux", runtime, [], "parts.llama-cpp")
    program = localai_nixpkgs.run(["nix-store", "--realise", drv]).strip() + "/bin/llama-cpp-grpc-server"
    argv = ["objdump", "--disassemble", "--no-show-raw-insn", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as objdump:
        assert objdump.stdout
        left = set(present)
        for line in objdump.stdout:
            assert not any(pattern.search(line) for pattern in absent), line
            left -= {pattern for pattern in left if pattern.search(line)}
    assert not left
