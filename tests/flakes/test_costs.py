"""What a first build costs is said alike everywhere."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.targets import Runtime
from aikit_nix.flakes import costs
from aikit_nix.flakes.plan import Engine, Options, Packages, Plan, make
from support.flakes import PINNED

ROOT = Path(__file__).resolve().parents[2]


def planned(packages: Packages, engine: Engine, backends: tuple[str, ...] = ()) -> Plan:
    plan, _ = make(parse(PINNED, "aikitfile.yaml")[0], Options(packages=packages, engine=engine))
    return dataclasses.replace(plan, backends=backends)


def test_each_engine_and_backend_costs_its_own() -> None:
    llama = costs.words(planned(Packages.NIXPKGS, Engine.LLAMA_SERVER), 0)
    assert "compiles llama.cpp from 94 MB of sources (about 6 minutes on 2 cores); `--packages debian`" in llama
    localai = costs.words(planned(Packages.NIXPKGS, Engine.LOCALAI), 0)
    assert "compiles LocalAI and llama.cpp from 671 MB of sources (about 16 minutes" in localai
    pictures = costs.words(planned(Packages.NIXPKGS, Engine.LOCALAI, ("stablediffusion",)), 0)
    assert "compiles LocalAI, llama.cpp and stable-diffusion.cpp from 944 MB of sources (about 19 minutes" in pictures
    debian = planned(Packages.DEBIAN, Engine.LLAMA_SERVER)
    assert costs.words(debian, 20_000_000) == "the first build downloads 20 MB of Debian packages and takes seconds"
    assert costs.words(debian, 0) == ""


def test_cuda_is_compiled_once_for_each_architecture() -> None:
    def said(*capabilities: str) -> str:
        options = Options(runtime=Runtime.CUDA, cuda_capabilities=capabilities)
        plan, _ = make(parse(PINNED, "aikitfile.yaml")[0], options)
        return costs.words(plan, 0).partition("sources ")[2]

    own = "(about 16 minutes on 2 cores, and at least 46 more for each of 9 CUDA architectures"
    assert said() == f"{own}; `--cuda-capability 8.6` compiles for that alone)"
    assert said("8.6", "9.0") == own.replace("9 CUDA", "2 CUDA") + ")"
    assert said("8.6", "8.6") == own.replace("each of 9 CUDA architectures", "one CUDA architecture") + ")"


def test_readme_and_docs_say_the_same() -> None:
    rows = dict(
        re.findall(r"^\| (\S+) +\| (\d+ \| \d+) \|$", (ROOT / "docs/localai.md").read_text(), flags=re.MULTILINE)
    )
    parts = (costs.SERVER, costs.LLAMA_CPP, costs.STABLEDIFFUSION, costs.EXLLAMA2)
    assert {part.name: f"{part.minutes} | {part.megabytes}" for part in parts}.items() <= rows.items()
    sentence = (
        costs.words(planned(Packages.NIXPKGS, Engine.LOCALAI), 0).removeprefix("the first build ").partition(";")[0]
    )
    assert sentence in (ROOT / "README.md").read_text()
