"""What a first build costs is said alike everywhere."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from aikit_nix.aikitfile.parser import parse
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
    assert "compiles LocalAI, llama.cpp and stable-diffusion.cpp from 692 MB of sources (about 18 minutes" in pictures
    debian = planned(Packages.DEBIAN, Engine.LLAMA_SERVER)
    assert costs.words(debian, 20_000_000) == "the first build downloads 20 MB of Debian packages and takes seconds"
    assert costs.words(debian, 0) == ""


def test_readme_and_docs_say_the_same() -> None:
    rows = dict(
        re.findall(r"^\| (\S+) +\| (\d+ \| \d+) \|$", (ROOT / "docs/localai.md").read_text(), flags=re.MULTILINE)
    )
    parts = (costs.SERVER, costs.LLAMA_CPP, costs.STABLEDIFFUSION)
    assert rows == {part.name: f"{part.minutes} | {part.megabytes}" for part in parts}
    sentence = (
        costs.words(planned(Packages.NIXPKGS, Engine.LOCALAI), 0).removeprefix("the first build ").partition(";")[0]
    )
    assert sentence in (ROOT / "README.md").read_text()
