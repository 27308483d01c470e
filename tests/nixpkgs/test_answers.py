"""The same aikitfile on both engines: the same requests, and what of the answers differs.

AIKIT_ANSWERS=1 records what is seen, and writes it into docs/engines.md. Needs what test_localai_image.py needs, and the
demo's model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import gemma
from nixpkgs import localai, test_localai, toolchain
from support import answers, container, flakes, image
from support.answers import Facts
from support.command import aikit_nix

# One thread: several wait for each other where others want the processors.
ENV = {"LLAMA_ARG_THREADS": "1", "LOCALAI_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("answers")
    yield folder
    # The images' folders are read-only.
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    shutil.rmtree(folder)


def of_localai(folder: Path) -> Path:
    nixpkgs = localai.on_debian(folder.parent / f"nixpkgs-{folder.name}")
    localai.provide_sources(nixpkgs, test_localai.engine(nixpkgs, "x86_64-linux", "avx2", []))
    done = aikit_nix("gen", "--engine", "localai", "--flake", "localai", cwd=folder, env={**os.environ, **nixpkgs.env})
    assert done.returncode == 0, done.stderr
    return nixpkgs.build(folder / "localai", "default")


def of_llama_server(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        flakes.environment(folder, patch)
        done = aikit_nix("gen", "--packages", "debian", "--flake", "llama-server", cwd=folder)
        assert done.returncode == 0, done.stderr
        return flakes.build(folder / "llama-server")


IMAGES = {"localai": of_localai, "llama-server": of_llama_server}


@pytest.mark.usefixtures("nix", "bubblewrap")
def test_what_differs_between_the_engines_is_what_the_docs_say(folder: Path) -> None:
    if not (model := gemma.cached()):
        pytest.skip("the demo's model is not here: `make demo` downloads it")
    seen: dict[str, dict[str, Facts]] = {engine: {} for engine in answers.ENGINES}
    for name, (aikitfile, requests) in answers.FILES.items():
        (folder / name).mkdir()
        (folder / name / "aikitfile.yaml").write_text(aikitfile)
        shutil.copy(model, folder / name / "gemma.gguf")
        for engine in answers.ENGINES:
            try:
                layout = IMAGES[engine](folder / name)
            except toolchain.UnavailableError as reason:
                pytest.skip(str(reason))
            root = folder / name / f"root-{engine}"
            with container.start(image.unpack(layout, root), root, env=ENV) as server:
                seen[engine] |= answers.see(server.url, requests)
    if os.environ.get("AIKIT_ANSWERS"):
        answers.write(seen)
    recorded: Mapping[str, Mapping[str, Facts]] = json.loads(answers.RECORD.read_text())
    assert seen == recorded
