"""What a processor lacks for a runtime."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from aikit_nix.base import targets

SANDY_BRIDGE = "fpu sse4_2 avx"
HASWELL = f"{SANDY_BRIDGE} avx2 fma f16c bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512cd avx512vl avx512dq avx512bw"


@pytest.fixture
def cpuinfo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {request.param}\n\nprocessor\t: 1\nflags\t\t: {request.param}\n")
    return path


@pytest.mark.parametrize(
    ("cpuinfo", "best", "lacks"),
    [
        ("fpu sse4_2", None, {"avx": ["avx"], "avx2": ["avx2", "fma", "f16c", "bmi2", "avx"]}),
        (SANDY_BRIDGE, "avx", {"avx": [], "avx2": ["avx2", "fma", "f16c", "bmi2"]}),
        (HASWELL, "avx2", {"avx2": [], "avx512": ["avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"]}),
        (SKYLAKE, "avx512", {"avx512": [], "cuda": [], "cpu": []}),
    ],
    indirect=["cpuinfo"],
)
def test_what_a_processor_lacks(cpuinfo: Path, best: str | None, lacks: dict[str, list[str]]) -> None:
    assert targets.best_runtime(cpuinfo) == best
    assert {runtime: targets.missing_flags(runtime, cpuinfo) for runtime in lacks} == lacks


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: fp asimd\n"])
def test_of_another_processor_nothing_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    for path in (tmp_path / "cpuinfo", tmp_path / "nothing"):
        assert targets.missing_flags("avx512", path) == []
        assert targets.best_runtime(path) is None


@pytest.mark.parametrize("cpuinfo", [HASWELL], indirect=True)
def test_the_warning_names_what_is_missing_and_what_would_run(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (said,) = targets.warnings({"x86_64-linux": "avx512"}, cpuinfo)
    assert str(said) == (
        "warning: this machine could not start the image: its processor lacks avx512f, avx512cd, avx512vl, avx512dq,"
        " avx512bw, which avx512 needs; `--runtime avx2` would run here"
    )
    assert list(targets.warnings({"x86_64-linux": "avx2"}, cpuinfo)) == []
    # the image of another system is not started here anyway
    assert list(targets.warnings({"aarch64-linux": "avx512"}, cpuinfo)) == []
