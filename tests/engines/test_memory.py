"""What llama.cpp takes, against what was computed from the model's header."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from aikit_nix.aikitfile.types import Runtime
from aikit_nix.engines import memory
from aikit_nix.engines.memory import MIB, Settings
from aikit_nix.sources import gguf, judge
from aikit_nix.sources.gguf import Facts
from support import container, image, shaped_gguf
from support.command import aikit_nix
from support.flakes import build, environment
from support.shaped_gguf import Shape

WIDE = Shape(width=768, inner=3072, layers=4, heads=12, shared=4, tokens=32000)
DEEP = Shape(width=256, inner=1024, layers=24, heads=8, shared=8, tokens=1000)


@pytest.fixture(scope="module")
def server(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[image.Image, Path]:
    """An unpacked image whose model is replaced by others."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "m.gguf").write_bytes(tiny_model.read_bytes())
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n")
    with pytest.MonkeyPatch.context() as patch:
        environment(folder, patch)
        arguments = ["--packages", "debian", "--runtime", Runtime.AVX2, "-o", "flake"]
        done = aikit_nix("gen", *arguments, cwd=folder, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return image.unpack(build(folder / "flake"), folder / "root"), folder / "root"


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    ("shape", "context", "slots", "kind"),
    [(WIDE, 1024, 1, "f16"), (WIDE, 1024, 2, "q8_0"), (DEEP, 2048, 4, "f16")],
)
def test_the_estimate_is_never_under_what_is_used_and_close_to_it(
    server: tuple[image.Image, Path], tmp_path: Path, shape: Shape, context: int, slots: int, kind: str
) -> None:
    file = shaped_gguf.make(tmp_path / "m.gguf", shape)
    header = judge.of_file(file)
    assert header
    use = memory.use([(file.stat().st_size, header.facts)], Settings(context, slots, 512, kind, kind))
    assert use
    arguments = ["--model", "/mnt/m.gguf", "--ctx-size", str(context), "--parallel", str(slots), "--cache-ram", "0"]
    arguments += ["--cache-type-k", kind, "--cache-type-v", kind, "--no-warmup"]
    with container.start(*server, arguments=arguments, volumes={"/mnt": tmp_path}) as running:
        prompt = {"prompt": [7] * (context // slots - 8), "n_predict": 4}
        clients = [threading.Thread(target=running.ask, args=("/completion", prompt, 300)) for _ in range(slots)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        used = running.peak("llama-server")
    assert used <= use.total <= 1.15 * used, f"{use} is {use.total / MIB:.0f} MiB, {used / MIB:.0f} were used"


def test_a_window_bounds_the_cache_of_its_layers() -> None:
    gemma = gguf.Shape(768, 768, 512, 3840, 3840, 9344, 262144, 0, 13271040)
    facts = Facts(False, 32768, None, gemma)
    caches = {  # as llama.cpp b11669 says them of Gemma 3 270M
        (512, 1): 1.5 + 7.5, (4096, 1): 12 + 15, (32768, 1): 96 + 15, (16384, 4): 48 + 60,
    }  # fmt: skip
    for (context, slots), size in caches.items():
        use = memory.use([(1, facts)], Settings(context, slots))
        assert use
        assert use.cache == size * MIB


def test_with_the_whole_context_in_all_layers_a_window_bounds_nothing() -> None:
    facts = Facts(False, 32768, None, gguf.Shape(768, 768, 512, 3840, 3840))
    use = memory.use([(1, facts)], Settings(32768, full=True))
    assert use
    assert use.cache == 2 * 32768 * 2 * (768 + 3840)


def test_a_draft_has_a_cache_of_its_own_and_later_shards_have_weights_alone() -> None:
    facts, settings = Facts(True, 4096, None, gguf.Shape(256, 256, buffers=512, repacked=MIB)), Settings(4096)
    one = memory.use([(MIB, facts)], settings)
    draft = memory.use([(MIB, facts), (MIB, facts)], settings)
    shards = memory.use([(MIB, facts), (MIB, Facts(shape=gguf.Shape(repacked=MIB)))], settings)
    assert one
    assert draft
    assert shards
    assert (draft.cache, draft.total) == (2 * one.cache, 2 * one.total - memory.PROGRAM)
    assert (shards.cache, shards.rest) == (one.cache, one.rest + MIB)


def test_what_a_header_does_not_say_is_not_guessed() -> None:
    assert memory.use([(1, Facts(True, 4096))], Settings(4096)) is None
    assert memory.use([(None, Facts(True, 4096, None, gguf.Shape(1, 1)))], Settings(4096)) is None
    assert memory.use([(1, None)], Settings(4096)) is None
