"""From an aikitfile to an answer: gen, a sandboxed `nix build` on the Debian packages, the image started.

One flake is generated and built for the whole module. The image's server is real; its model is tiny.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.models import layer as model_layer
from support import container, debian_lock, file_server, image, tiny_gguf
from support.command import aikit_nix

# Everything that Nix or a shell could take for code of its own.
HOSTILE = "${builtins.abort \"no\"} ''${x}'' '' ' \" \\ \\\\ $(touch /pwned) `id` {{.Input}} \t grün\n\nend\n"

AIKITFILE = """\
apiVersion: v1alpha1
runtime: avx
models:
  - name: tiny
    source: {source}
    promptTemplates:
      - name: hostile
        template: {template}
config: |
  - name: the-model
    backend: llama-cpp
    context_size: {context}
    parameters:
      model: tiny.gguf
      temperature: 0.2
"""


@dataclass(frozen=True)
class Flake:
    """A generated flake."""

    folder: Path

    def build(self, output: str = "default", *options: str) -> Path:
        """The store path of one of the flake's packages, or of a check by its full name."""
        done = self.try_build(output, *options)
        assert done.returncode == 0, done.stderr[-4000:]
        return Path(done.stdout.strip())

    def try_build(self, output: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ["nix", "build", f"path:{self.folder}#{output}", "--no-link", "--json", *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            done.stdout = json.loads(done.stdout)[0]["outputs"]["out"]
        return done


def generate(folder: Path, context: int = 512, source: str = "tiny.gguf", more: str = "") -> Flake:
    text = AIKITFILE.format(source=source, template=json.dumps(HOSTILE), context=context)
    (folder / "aikitfile.yaml").write_text(text.replace("    promptTemplates", f"{more}    promptTemplates"))
    done = aikit_nix("gen", "--packages", "debian", "--escapes", "verbatim", "--flake", "flake", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Flake(folder / "flake")


@pytest.fixture(scope="module")
def flake(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flake]:
    folder = tmp_path_factory.mktemp("end-to-end")
    shutil.copy(tiny_model, folder / "tiny.gguf")
    with pytest.MonkeyPatch.context() as patch:
        if lock := debian_lock.usable(folder, print):
            patch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
        yield generate(folder)


@pytest.fixture(scope="module")
def unpacked(flake: Flake, tmp_path_factory: pytest.TempPathFactory) -> tuple[image.Image, Path]:
    root = tmp_path_factory.mktemp("image") / "root"
    return image.unpack(flake.build("archive"), root), root


@pytest.mark.usefixtures("bubblewrap")
def test_the_image_answers(unpacked: tuple[image.Image, Path]) -> None:
    with container.start(*unpacked) as server:
        assert [model["id"] for model in server.ask("/v1/models")["data"]] == ["the-model"]
        assert server.chat("Hello, who are you?") == tiny_gguf.SENTENCE
        assert server.chat("Grüß Gott 你好", temperature=1.5) == tiny_gguf.SENTENCE
        assert server.ask("/props")["default_generation_settings"]["n_ctx"] == 512


@pytest.mark.usefixtures("bubblewrap", "flake")
def test_two_models_answer_each_for_itself(tmp_path: Path) -> None:
    """llama-server starts itself again, once for each model: also where it has no loader but its own."""
    sentences = {"one": "The first model says this.", "two": "Here speaks another one."}
    aikitfile = "apiVersion: v1alpha1\nmodels:\n"
    for name, sentence in sentences.items():
        tiny_gguf.make(tmp_path / f"{name}.gguf", sentence)
        aikitfile += f"  - name: {name}\n    source: {name}.gguf\n"
    (tmp_path / "aikitfile.yaml").write_text(aikitfile)
    done = aikit_nix("gen", "--packages", "debian", "--flake", "flake", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    read = image.unpack(Flake(tmp_path / "flake").build(), tmp_path / "root")
    with container.start(read, tmp_path / "root") as server:
        for name, sentence in sentences.items():
            assert server.chat("Hello", model=name) == sentence


@pytest.mark.usefixtures("bubblewrap")
def test_a_model_that_is_broken_is_reported(flake: Flake, unpacked: tuple[image.Image, Path]) -> None:
    with (
        pytest.raises(container.ContainerError, match="before it was ready"),
        container.start(*unpacked, arguments=["--model", "/models/hostile.tmpl"]),
    ):
        pass


def test_the_image_says_how_to_run_it(unpacked: tuple[image.Image, Path], tiny_model: Path) -> None:
    run = unpacked[0].run
    assert run["User"] == "65532:65532"
    assert run["ExposedPorts"] == {"8080/tcp": {}}
    assert unpacked[0].names == ("tiny:avx",)
    assert run["Labels"]["org.opencontainers.image.title"] == "tiny"
    models = json.loads(run["Labels"]["aikit-nix.models"])
    assert models == {"/models/tiny.gguf": f"sha256:{hashlib.sha256(tiny_model.read_bytes()).hexdigest()}"}


def test_texts_arrive_byte_for_byte(unpacked: tuple[image.Image, Path]) -> None:
    assert (unpacked[1] / "models/hostile.tmpl").read_bytes() == HOSTILE.encode()
    assert (unpacked[1] / "config.yaml").read_text().startswith("- name: the-model\n")


def test_any_user_can_read_everything(flake: Flake) -> None:
    """Containers run as a user who owns nothing; the runner of these tests could not tell."""
    with tarfile.open(flake.build("archive")) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json") or pytest.fail())
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                for member in layer:
                    wanted = 0o5 if member.isdir() else 0o4
                    assert member.issym() or member.mode & wanted == wanted, member
                    assert member.mtime <= 1, member


def test_a_model_is_a_file_in_a_layer_of_its_own(unpacked: tuple[image.Image, Path], tiny_model: Path) -> None:
    read, root = unpacked
    assert read.layers[0].files == ("/models/tiny.gguf",)
    assert read.layers[0].digest == model_layer.describe("/models/tiny.gguf", tiny_model)["digest"]
    assert not (root / "models/tiny.gguf").is_symlink()
    assert (root / "models/tiny.gguf").read_bytes() == tiny_model.read_bytes()


def test_models_alone_are_a_working_folder(
    unpacked: tuple[image.Image, Path], tmp_path: Path, tiny_model: Path
) -> None:
    """As an image volume or RamaLama takes them, elsewhere than at /models."""
    shutil.copytree(unpacked[1] / "models", tmp_path / "volume", symlinks=True)
    assert {file.name for file in (tmp_path / "volume").iterdir()} == {"tiny.gguf", "hostile.tmpl", "model.file"}
    assert (tmp_path / "volume/model.file").read_bytes() == tiny_model.read_bytes()
    assert unpacked[0].run["Labels"]["org.containers.type"] == "ai.image.model.car"


def test_a_change_of_a_text_changes_the_last_layer_only(
    flake: Flake, unpacked: tuple[image.Image, Path], tmp_path: Path
) -> None:
    shutil.copy(flake.folder.parent / "tiny.gguf", tmp_path)
    other = image.unpack(generate(tmp_path, context=256).build())
    before, after = ([layer.digest for layer in read.layers] for read in (unpacked[0], other))
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
    assert other.layers[-1].size < 20_000
    assert set(other.layers[-1].files) == {"/config.yaml", "/models/hostile.tmpl", "/models/model.file"}


def test_the_build_is_reproducible(flake: Flake) -> None:
    flake.build()
    assert flake.build("default", "--rebuild") == flake.build()


def test_stream_is_the_same_image(flake: Flake, unpacked: tuple[image.Image, Path], tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    with archive.open("wb") as output:
        subprocess.run([flake.build("stream")], stdout=output, check=True)
    assert image.unpack(archive) == unpacked[0]


def test_oci_is_the_same_image(flake: Flake, unpacked: tuple[image.Image, Path]) -> None:
    layout = image.unpack(flake.build())
    assert (layout.digest, layout.layers) == (unpacked[0].digest, unpacked[0].layers)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
@pytest.mark.parametrize(("output", "transport"), [("archive", "docker-archive"), ("default", "oci")])
def test_skopeo_reads_it(
    flake: Flake, unpacked: tuple[image.Image, Path], output: str, transport: str, tmp_path: Path
) -> None:
    source = f"{transport}:{flake.build(output)}"
    # Copying reads and checks every blob.
    argv = ["skopeo", "--insecure-policy", "copy", "-q", source, f"dir:{tmp_path}/copy"]
    subprocess.run(argv, check=True, capture_output=True)
    shown = subprocess.run(["skopeo", "inspect", "--config", source], check=True, capture_output=True).stdout
    config: dict[str, Any] = json.loads(shown)
    assert config["rootfs"]["diff_ids"] == [layer.digest for layer in unpacked[0].layers]
    assert config["config"]["User"] == "65532:65532"


@pytest.mark.skipif(not shutil.which("skopeo") or os.geteuid() != 0, reason="needs skopeo, and to be root")
def test_podmans_storage_takes_it(flake: Flake, unpacked: tuple[image.Image, Path], tmp_path: Path) -> None:
    """What `podman load` does, without podman."""
    target = f"containers-storage:[vfs@{tmp_path}/root+{tmp_path}/run]localhost/tiny:avx"
    argv = ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{flake.build('archive')}", target]
    subprocess.run(argv, check=True, capture_output=True)
    shown = subprocess.run(["skopeo", "inspect", "--config", "--raw", target], check=True, capture_output=True).stdout
    assert f"sha256:{hashlib.sha256(shown).hexdigest()}" == unpacked[0].digest


def test_the_flakes_own_check_passes(flake: Flake) -> None:
    result = json.loads(flake.build("checks.x86_64-linux.serves").read_text())
    assert result["models"] == ["the-model"]


def from_url(folder: Path, url: str, data: bytes) -> Flake:
    sha256 = hashlib.sha256(data).hexdigest()
    return generate(folder, source=url, more=f"    sha256: {sha256}\n")


@pytest.mark.usefixtures("flake")
def test_a_model_is_fetched_from_its_url(files: file_server.FileServer, tmp_path: Path) -> None:
    data = tiny_gguf.make(tmp_path / "m.gguf", name="fetched").read_bytes()
    files.files["/m/tiny.gguf"] = data
    models = from_url(tmp_path, f"{files.url}/m/tiny.gguf?download=true", data).build("models")
    assert (models / "models/tiny.gguf").read_bytes() == data


@pytest.mark.usefixtures("flake")
def test_a_url_with_other_bytes_is_refused(files: file_server.FileServer, tmp_path: Path) -> None:
    files.files["/tiny.gguf"] = b"something else"
    done = from_url(tmp_path, f"{files.url}/tiny.gguf", b"what the author saw").try_build("default")
    assert done.returncode != 0
    assert "hash mismatch" in done.stderr
