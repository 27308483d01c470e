"""`aikit-nix verify`: the image that follows from flake and lock differs in nothing, and every other one does."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aikit_nix.attest import verify
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import materials
from aikit_nix.flakes.materials import Materials
from aikit_nix.http.client import Client
from aikit_nix.image import blobs
from aikit_nix.image.layout import read_layout
from aikit_nix.nix import store
from support import fake_registry, forged, layouts, recipes
from support.command import aikit_nix
from support.fake_registry import FakeRegistry

MODEL = "/models/llama.gguf"
CONTENT = random.Random("never in a store").randbytes(2000)
RUN = {
    "Entrypoint": ["llama-server"],
    "Cmd": ["--ctx-size", "512"],
    "Env": ["HOME=/tmp", "PATH=/usr/bin"],
    "ExposedPorts": {"8080/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "/usr/libexec/aikit-nix", "probe"]},
    "User": "65532:65532",
    "WorkingDir": "/",
}


class Honest:
    """Materials, the layout that Nix makes of them without the models' bytes, and the whole image in two forms.

    No dataclass: hypothesis would print all of it.
    """

    def __init__(self, materials: Materials, wanted: Path, layout: Path, archive: Path) -> None:
        self.materials = materials
        self.wanted = wanted
        self.layout = layout
        self.archive = archive


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return make(tmp_path_factory.mktemp("honest"))


def make(folder: Path) -> Honest:
    recipes.write(folder / "flake", CONTENT)
    labels = {"org.opencontainers.image.version": "avx2"}
    write = partial(layouts.write, models={MODEL: CONTENT}, files={"config.yaml": b"x"}, run=RUN, labels=labels)
    whole = write(folder / "whole")
    thin = write(folder / "thin", with_models=False)
    layouts.real_blobs(whole)
    return Honest(materials.read(folder / "flake"), thin, whole, layouts.archive(whole, folder / "image.tar"))


def check(image: Path | str, honest: Honest) -> list[str]:
    """What differs, or why it is no image at all."""
    report = verify.Report()
    try:
        with Client() as client, blobs.opened(str(image), client, architecture="amd64") as opened:
            verify.image(opened, honest.materials, read_layout(honest.wanted), report)
    except AikitError as refused:
        return [str(refused)]
    assert report.checked
    return [each.message for each in report.differences]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry.serve() as running:
        yield running


def fill(registry: FakeRegistry, layout: Path) -> str:
    """The layout's image in a registry; its name."""
    for blob in (layout / "blobs/sha256").iterdir():
        registry.blobs["a/llama", f"sha256:{blob.name}"] = blob.read_bytes()
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    registry.manifests["a/llama", "1"] = registry.blobs["a/llama", entry["digest"]]
    return f"{registry.address}/a/llama:1"


def test_the_image_that_follows_differs_in_nothing(honest: Honest, tmp_path: Path, registry: FakeRegistry) -> None:
    assert check(honest.layout, honest) == []
    assert check(honest.archive, honest) == []
    assert check(fill(registry, honest.layout), honest) == []
    (tmp_path / "packed.tar").write_bytes(gzip.compress(honest.archive.read_bytes()))
    assert check(tmp_path / "packed.tar", honest) == []


# --- Forged


@pytest.mark.parametrize("change", forged.PARTS.values(), ids=forged.PARTS)
def test_a_forged_image_is_refused(change: Any, honest: Honest, tmp_path: Path) -> None:
    with forged.changed(honest.layout, tmp_path / "forged") as parts:
        change(parts)
    assert check(tmp_path / "forged", honest)


@pytest.mark.parametrize(("which", "old", "new"), forged.TEXTS.values(), ids=forged.TEXTS)
def test_json_that_readers_understand_differently_is_refused(
    which: str, old: str, new: str, honest: Honest, tmp_path: Path
) -> None:
    def text(name: str, text: str) -> str:
        assert name != which or old in text
        return text.replace(old, new) if name == which else text

    with forged.changed(honest.layout, tmp_path / "forged", text):
        pass
    assert check(tmp_path / "forged", honest)


# It has no manifest and no index.
NOT_IN_AN_ARCHIVE = ("annotation", "subject", "URLs", "kind", "is none", "Layers", "platform", "a name", "Manifests")
IN_ARCHIVES = [name for name in forged.PARTS if not any(words in name for words in NOT_IN_AN_ARCHIVE)]


@pytest.mark.parametrize("name", IN_ARCHIVES)
def test_a_forged_archive_is_refused(name: str, honest: Honest, tmp_path: Path) -> None:
    with forged.changed(honest.layout, tmp_path / "forged") as parts:
        forged.PARTS[name](parts)
    assert check(layouts.archive(tmp_path / "forged", tmp_path / "image.tar"), honest)


def test_an_archive_under_another_name_is_refused(honest: Honest, tmp_path: Path) -> None:
    spec = {"layout": str(honest.layout), "name": "nginx:latest", "models": []}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "image.tar").write_bytes(layouts.script("docker_archive.py", tmp_path / "spec.json"))
    assert check(tmp_path / "image.tar", honest) == ["name: nginx:latest, and it should be llama:avx2"]


def test_what_is_forged_is_named(honest: Honest, tmp_path: Path) -> None:
    with forged.changed(honest.layout, tmp_path / "forged") as parts:
        parts.run["User"] = "0:0"
        parts.add_layer(forged.EVIL)
    found = check(tmp_path / "forged", honest)
    assert 'user: "0:0", and the flake gives "65532:65532"' in found
    assert "layer 3: it is not the one that the flake gives, none" in found
    assert [each.split(":")[0] for each in found[-2:]] == [
        "index.json: manifests: digest",
        "manifest",
    ] or "manifest" in found[-1]


@pytest.mark.parametrize("packed", ["oci", "docker", "annotated", "with another layer"])
def test_a_registry_may_pack_the_layers_and_change_nothing_else(
    packed: str, honest: Honest, tmp_path: Path, registry: FakeRegistry
) -> None:
    with forged.changed(honest.layout, tmp_path / "other") as parts:
        for layer in parts.manifest["layers"]:
            content = (parts.folder / "blobs" / layer["digest"].replace(":", "/")).read_bytes()
            layer |= parts.blob(gzip.compress(content + bytes(packed == "with another layer")))
            docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
            layer["mediaType"] = docker if packed == "docker" else f"{layer['mediaType']}+gzip"
        if packed == "docker":
            parts.manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
            parts.manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
            del parts.manifest["annotations"]
        elif packed == "annotated":
            parts.manifest["annotations"]["a"] = "b"
    found = check(fill(registry, tmp_path / "other"), honest)
    assert (found == []) == (packed in ("oci", "docker"))


# --- Any other byte


BYTES = {"at": st.integers(0, 1 << 20), "by": st.integers(1, 255), "which": st.integers(0, 20)}


def mutated(content: bytes, at: int, by: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([content[at] ^ by]) + content[at + 1 :]


@settings(deadline=None, max_examples=150)
@given(**BYTES)
def test_no_changed_byte_of_a_layout_goes_unseen(honest: Honest, at: int, by: int, which: int) -> None:
    files = sorted(file for file in honest.layout.rglob("*") if file.is_file())
    file = files[which % len(files)]
    whole = file.read_bytes()
    try:
        file.write_bytes(mutated(whole, at, by))
        assert check(honest.layout, honest)
    finally:
        file.write_bytes(whole)


@settings(deadline=None, max_examples=150)
@given(**BYTES)
def test_no_changed_byte_of_an_archive_goes_unseen(honest: Honest, at: int, by: int, which: int) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "image.tar").write_bytes(mutated(honest.archive.read_bytes(), at, by))
        assert check(Path(folder) / "image.tar", honest)


@settings(deadline=None, max_examples=60)
@given(**BYTES)
def test_no_changed_byte_of_a_registrys_answer_goes_unseen(honest: Honest, at: int, by: int, which: int) -> None:
    with fake_registry.serve() as registry:
        name = fill(registry, honest.layout)
        (entry,) = json.loads((honest.layout / "index.json").read_text())["manifests"]
        del registry.blobs["a/llama", entry["digest"]]  # it is asked for as a manifest
        answers = registry.manifests if which % 4 == 0 else registry.blobs
        key = sorted(answers)[which % len(answers)]
        answers[key] = mutated(answers[key], at, by)
        assert check(name, honest)


VALUES = st.sampled_from([None, True, 0, 1, -1, 1.5, "x", [], ["x"], {}, {"x": 1}])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=6), VALUES)
def test_no_changed_value_of_the_json_goes_unseen(honest: Honest, way: list[int], value: object) -> None:
    """Not even where all digests are those of what was changed."""
    with TemporaryDirectory() as folder:
        with forged.changed(honest.layout, Path(folder) / "other") as parts:
            everything = [parts.index, parts.manifest, parts.config]
            before = json.dumps(everything)
            holder: Any = everything
            key: Any = way[0] % 3
            for step in way[1:]:
                if isinstance(inner := holder[key], dict | list) and inner:
                    holder, key = (
                        inner,
                        (sorted(inner) if isinstance(inner, dict) else range(len(inner)))[step % len(inner)],
                    )
            holder[key] = copy.deepcopy(value)
            changed = json.dumps(everything) != before
        if value == {} and way[0] % 3 == 0:
            return  # tools that copy a layout leave its name and platform out
        # Digest and size of manifest and configuration are written again.
        if changed and (Path(folder) / "other/index.json").read_bytes() != (honest.layout / "index.json").read_bytes():
            assert check(Path(folder) / "other", honest)


# --- What is not compared


def test_without_a_plan_nothing_is_proved(honest: Honest, tmp_path: Path) -> None:
    done = aikit_nix("verify", honest.layout, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("error: not compared with a plan: no flake is here (name its folder with --flake)\n")
    assert f"ok: sha256 of {MODEL}: {recipes.sha256(CONTENT)}" in done.stdout


def test_a_flake_that_is_named_has_to_be_there(honest: Honest, tmp_path: Path) -> None:
    done = aikit_nix("verify", "--flake", "/nonexistent", honest.layout, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: /nonexistent is not there")
    done = aikit_nix("verify", "--lock", honest.materials.folder / "aikit.lock", honest.layout, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_flake_that_cannot_be_built_is_no_plan(honest: Honest, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}  # without Nix
    done = aikit_nix("verify", "--flake", honest.materials.folder, honest.layout, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "error: not compared with a plan: `nix` is missing: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_pinned_otherwise_is_named(honest: Honest) -> None:
    (model,) = honest.materials.models
    other = replace(model, file=replace(model.file, sha256="0" * 64))

    def with_models(*models: materials.ModelMaterial) -> Honest:
        return Honest(replace(honest.materials, models=models), honest.wanted, honest.layout, honest.archive)

    sha256 = recipes.sha256(CONTENT)
    assert check(honest.layout, with_models(other)) == [f"sha256 of {MODEL}: {sha256}, and it should be {'0' * 64}"]
    another = replace(model, file=replace(model.file, path="/models/b.gguf"))
    assert check(honest.layout, with_models(model, another)) == [
        "/models/b.gguf: it is pinned, and no layer of the image has it"
    ]


# --- Blobs


def test_a_blob_that_is_cut_or_missing_is_named(tmp_path: Path) -> None:
    honest = make(tmp_path)
    blob = max(layouts.real_blobs(honest.layout), key=lambda blob: blob.stat().st_size)
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-512])
    assert "and the manifest says" in check(honest.layout, honest)[0]
    blob.unlink()
    assert f"the blob sha256:{blob.name} is not in {honest.layout}" in check(honest.layout, honest)[0]


def test_a_blob_without_an_end_is_left(honest: Honest) -> None:
    with Client() as client, blobs.opened(str(honest.layout), client) as opened:
        report = verify.Report()
        endless = replace(opened, blocks=lambda _: itertools.repeat(bytes(1 << 20)))
        verify.image(endless, None, None, report)
    for difference, layer in zip(report.differences, opened.image.layers, strict=True):
        assert f"and the manifest says {layer.digest} of {layer.size:,}" in difference.message


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
@pytest.mark.parametrize("options", [["--preserve-digests"], [], ["--format", "v2s2"]])
def test_what_skopeo_copies_is_the_same_image(honest: Honest, tmp_path: Path, address: str, options: list[str]) -> None:
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
    reference = f"{address}/a/llama:1"
    subprocess.run([*argv, f"oci:{honest.layout}", f"docker://{reference}"], check=True, capture_output=True)
    assert check(reference, honest) == []
    (stored,) = [
        file for file in (tmp_path / "registry").rglob("blobs/*/*/*/data") if file.read_bytes()[:2] == b"\x1f\x8b"
    ][:1] or [max((tmp_path / "registry").rglob("blobs/*/*/*/data"), key=lambda file: file.stat().st_size)]
    content = stored.read_bytes()
    stored.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    assert check(reference, honest)
    copied = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{honest.layout}", f"oci:{tmp_path / 'copy'}"]
    subprocess.run(copied, check=True, capture_output=True)
    assert check(tmp_path / "copy", honest) == []


@pytest.mark.usefixtures("nix")
def test_the_store_is_compared_with_the_lock(tmp_path: Path) -> None:
    content, project = os.urandom(100_000), tmp_path / "flake"
    recipes.write(project, content)
    done = aikit_nix("verify", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{MODEL}: /nix/store/" in done.stderr
    (tmp_path / "llama.gguf").write_bytes(content)
    store.add(tmp_path / "llama.gguf", "llama.gguf", recipes.sha256(content))
    done = aikit_nix("verify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ok: sha256 of /nix/store/" in done.stdout


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_what_is_no_image_is_refused(tmp_path: Path, honest: Honest, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    done = aikit_nix("verify", tmp_path / "file", cwd=honest.materials.folder)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
