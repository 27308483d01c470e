"""The benchmarks run to their end, on a model too small to measure anything: what they say is not looked at here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("gen", "gen, 100 models"),
        ("check", "check, 100 models"),
        ("image", "changed config, gen + oci"),
        ("transfer", "fetch 2 MiB into the store"),
        ("bundle", "unbundle 2 MiB"),
        ("clients", "clients 16: plain requests to ours"),
    ],
)
def test_a_benchmark_runs_to_its_end(nix: None, part: str, says: str) -> None:
    if part == "transfer" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    small = {"AIKIT_BENCH_MIB": "2", "AIKIT_BENCH_ROUNDS": "1", "PYTHONPATH": str(ROOT / "tests")}
    argv = [sys.executable, str(ROOT / "tools/bench.py"), part]
    done = subprocess.run(argv, env={**os.environ, **small}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
