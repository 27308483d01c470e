from __future__ import annotations

import pytest

from nixpkgs import localai, test_localai, toolchain
from nixpkgs.toolchain import Nixpkgs


@pytest.fixture(scope="module")
def localai_nixpkgs(tmp_path_factory: pytest.TempPathFactory) -> Nixpkgs:
    try:
        nixpkgs = localai.on_debian(tmp_path_factory.mktemp("nixpkgs") / "localai")
        localai.provide_sources(nixpkgs, test_localai.engine(nixpkgs, "x86_64-linux", "avx2", ["stablediffusion"]))
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))
    return nixpkgs
