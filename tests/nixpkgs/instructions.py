"""The machine code of what was compiled for a runtime: its instructions, and no others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# objdump prints an instruction as `address: TAB mnemonic operands`.
_AVX512 = re.compile(r"%zmm|%k[1-7]\b|\{%k[1-7]\}")
_FMA = re.compile(r"\tvf(n?madd|n?msub)\w+ ")
# Integers of 256 bits are AVX2; AVX has only floating point, and moves.
_AVX2 = re.compile(r"\tv(p(?!ermilp|erm2f128|extr|insr|test)\w+|broadcasti128|inserti128|extracti128) .*%ymm")
_OF = {"avx": (), "avx2": (_AVX2, _FMA), "avx512": (_AVX2, _FMA, _AVX512)}
RUNTIMES = tuple(_OF)


def require(program: Path, runtime: str) -> None:
    """Assert that a program or library has the instructions of a runtime, and none of a later one."""
    left = set(_OF[runtime])
    absent = {*_OF["avx512"]} - left
    argv = ["objdump", "--disassemble", "--no-show-raw-insn", str(program)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as objdump:
        assert objdump.stdout
        for line in objdump.stdout:
            assert not any(pattern.search(line) for pattern in absent), line
            left -= {pattern for pattern in left if pattern.search(line)}
    assert not left
