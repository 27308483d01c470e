"""A generated flake built for real: llama-server compiled by nixpkgs' stdenv, the image made by its dockerTools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aikit_nix.base import targets
from aikit_nix.models import layer as model_layer
from nixpkgs import instructions, toolchain
from nixpkgs.toolchain import Nixpkgs
from support import container, tiny_gguf
from support.command import aikit_nix
from support.image import Image, unpack

AIKITFILE = """\
apiVersion: v1alpha1
runtime: {runtime}
models:
  - name: one
    source: one.gguf
  - name: two
    source: two.gguf
config: |
  - name: first
    parameters: {{model: one.gguf}}
    context_size: {context}
  - name: second
    parameters: {{model: two.gguf}}
"""
LLAMA_CPP = "{ nixpkgs }: (import nixpkgs { config = { }; overlays = [ ]; }).llama-cpp.src"


@dataclass(frozen=True)
class Built:
    """A generated flake, what `nix build` made of it, and the image unpacked."""

    flake: Path
    result: Path
    image: Image
    root: Path


def generate(nixpkgs: Nixpkgs, folder: Path, context: int, runtime: str = "avx2") -> Path:
    folder.mkdir()
    tiny_gguf.make(folder / "one.gguf", "First answer.", name="one")
    tiny_gguf.make(folder / "two.gguf", "Second answer.", name="two")
    (folder / "aikitfile.yaml").write_text(AIKITFILE.format(context=context, runtime=runtime))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nixpkgs.env.items():
            patch.setenv(name, value)
        done = aikit_nix("gen", "--engine", "llama-server", "--flake", "flake", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "flake"


@pytest.fixture(scope="module")
def built(debian_nixpkgs: Nixpkgs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    try:
        debian_nixpkgs.provide(LLAMA_CPP, "LLAMA_CPP_SRC")
    except toolchain.UnavailableError as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("image")
    flake = generate(debian_nixpkgs, folder / "built", 512)
    result = debian_nixpkgs.build(flake, "default")
    yield Built(flake, result, unpack(result, folder / "root"), folder / "root")
    # The image's folders are read-only.
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


def digests(image: Image) -> list[str]:
    return [layer.digest for layer in image.layers]


def test_models_lie_below_the_engine_and_the_texts_above(built: Built) -> None:
    one, two, *stored, fixed, texts = built.image.layers
    assert [layer.files for layer in (one, two)] == [("/models/one.gguf",), ("/models/two.gguf",)]
    assert one.digest == model_layer.describe("/models/one.gguf", built.flake.parent / "one.gguf")["digest"]
    assert all(len(layer.store_paths) == 1 and not layer.files for layer in stored)
    names = [layer.store_paths[0].split("-", 1)[1] for layer in stored]
    assert sorted(names) == ["aikit-nix", "debian-libraries", "host-cacert", "llama-server-avx2-9842"]
    assert {"/usr/bin/llama-server", "/usr/libexec/aikit-nix", "/etc/passwd"} < set(fixed.files)
    assert set(texts.files) == {"/config.yaml", "/models.ini", "/models/model.file"}
    assert texts.store_paths == fixed.store_paths == ()
    assert texts.size < 50_000


def test_the_files_of_the_image(built: Built) -> None:
    assert (built.root / "config.yaml").read_text().startswith("- name: first\n")
    model = built.root / "models/one.gguf"
    assert not model.is_symlink()
    assert model.read_bytes() == (built.flake.parent / "one.gguf").read_bytes()
    assert not (built.root / "config.yaml").is_symlink()
    assert built.image.names == ("docker.io/library/one:avx2",)
    assert built.image.run["User"] == "65532:65532"


def test_another_config_changes_the_last_layer_only(debian_nixpkgs: Nixpkgs, built: Built, tmp_path: Path) -> None:
    other = unpack(debian_nixpkgs.build(generate(debian_nixpkgs, tmp_path / "other", 256), "default"))
    assert digests(other)[:-1] == digests(built.image)[:-1]
    assert digests(other)[-1] != digests(built.image)[-1]


def test_the_manifest_needs_no_model(debian_nixpkgs: Nixpkgs, built: Built) -> None:
    manifest = debian_nixpkgs.build(built.flake, "manifest")
    requisites = debian_nixpkgs.run(["nix-store", "--query", "--requisites", str(manifest)])
    assert "llama-server-avx2" in requisites
    assert ".gguf" not in requisites
    oci = debian_nixpkgs.build(built.flake, "oci")
    assert (oci / "index.json").read_bytes() == (manifest / "index.json").read_bytes()


@pytest.mark.parametrize("output", ["default", "oci", "manifest", "stream"])
def test_a_second_build_gives_the_same_bytes(debian_nixpkgs: Nixpkgs, built: Built, output: str) -> None:
    first = debian_nixpkgs.build(built.flake, output)
    assert debian_nixpkgs.build(built.flake, output, "--rebuild") == first


def test_stream_and_oci_layout_are_the_same_image(debian_nixpkgs: Nixpkgs, built: Built, tmp_path: Path) -> None:
    stream = debian_nixpkgs.build(built.flake, "stream")
    with (tmp_path / "stream.tar").open("wb") as file:
        subprocess.run([str(stream)], stdout=file, check=True)
    streamed = unpack(tmp_path / "stream.tar")
    layout = unpack(debian_nixpkgs.build(built.flake, "oci"))
    assert digests(streamed) == digests(layout) == digests(built.image)
    assert streamed.digest == built.image.digest


def test_skopeo_reads_it(built: Built) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("`skopeo` is missing (Debian package skopeo)")
    argv = ["skopeo", "inspect", "--config", f"oci:{built.result}"]
    seen = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert seen["rootfs"]["diff_ids"] == digests(built.image)


def test_nothing_in_the_image_needs_the_machines_libraries(built: Built) -> None:
    servers = list(built.root.glob("nix/store/*/bin/llama-server"))
    assert servers
    for path in [*built.root.rglob("*.so*"), *servers]:
        if path.is_symlink() or "debian-libraries" in str(path):
            continue
        shown = subprocess.run(["readelf", "-ld", path], capture_output=True, text=True, check=True).stdout
        found = re.findall(r"(?:interpreter: |runpath: \[)([^\]]*)", shown)
        # cmake leaves an empty entry, which nixpkgs' full stdenv drops.
        places = [place for entry in found for place in entry.split(":") if place]
        assert places
        assert all(place.startswith("/nix/store/") for place in places), shown


@pytest.mark.parametrize("runtime", instructions.RUNTIMES)
def test_it_is_compiled_for_its_runtime_and_answers(
    bubblewrap: None, debian_nixpkgs: Nixpkgs, built: Built, tmp_path: Path, runtime: str
) -> None:
    flake = generate(debian_nixpkgs, tmp_path / "made", 512, runtime)
    root = tmp_path / "root"
    image = unpack(debian_nixpkgs.build(flake, "default"), root)
    try:
        (backend,) = root.rglob("libggml-cpu*.so")
        instructions.require(backend, runtime)
        if targets.missing_flags(runtime):
            pytest.skip(f"this processor has no {runtime}")
        with container.start(image, root) as running:
            assert running.chat("hello", model="first") == "First answer."
    finally:
        subprocess.run(["chmod", "-R", "u+w", root], check=True)


def test_it_answers(bubblewrap: None, built: Built) -> None:
    if targets.missing_flags("avx2"):
        pytest.skip("this processor has no AVX2")
    with container.start(built.image, built.root) as running:
        models = running.ask("/v1/models")
        assert sorted(model["id"] for model in models["data"]) == ["first", "second"]
        assert running.chat("hello", model="first") == "First answer."
        assert running.chat("hello", model="second") == "Second answer."


def test_an_older_processor_gets_a_message(built: Built) -> None:
    """Not an illegal instruction."""
    if not (emulator := shutil.which("qemu-x86_64")):
        pytest.skip("`qemu-x86_64` is missing (Debian package qemu-user)")
    script = (built.root / "usr/bin/llama-server").read_text()
    server = next(line.removeprefix("exec ") for line in script.splitlines() if line.startswith("exec "))
    argv = [emulator, "-cpu", "SandyBridge", server, "--offline", "--model", str(built.flake.parent / "one.gguf")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no backends are loaded" in done.stderr


def test_the_flakes_own_check_passes(debian_nixpkgs: Nixpkgs, built: Built) -> None:
    assert debian_nixpkgs.build(built.flake, "checks.x86_64-linux.serves").exists()
