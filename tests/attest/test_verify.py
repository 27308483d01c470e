"""`aikit-nix verify`: what it reads, and that it names whatever differs."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from aikit_nix.attest import verify
from aikit_nix.flakes import materials
from aikit_nix.http.client import Client
from aikit_nix.image import blobs
from aikit_nix.nix import store
from support import layouts, recipes
from support.command import aikit_nix

MODEL = "/models/llama.gguf"
CONTENT = random.Random("never in a store").randbytes(1_400_000)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    recipes.write(tmp_path / "flake", CONTENT)
    return tmp_path / "flake"


def files(project: Path, **changes: str) -> dict[str, bytes]:
    """What the layers above the models hold: the plan's texts, and the package database."""
    found = materials.read(project)
    texts = {text.path.lstrip("/"): text.text.encode() for text in found.plan.files}
    versions = {package.name: package.version for package in found.debs("x86_64-linux")} | changes
    status = {
        f"{layouts.STATUS}/{name}": f"Package: {name}\nVersion: {version}\n".encode()
        for name, version in versions.items()
    }
    return {**texts, **status, f"{layouts.STATUS}/libc6.md5sums": b"x  y\n"}


def check(image: Path | str, project: Path | None) -> list[str]:
    """The differences between an image and a recipe, or itself."""
    report = verify.Report()
    with Client() as client, blobs.opened(str(image), client, architecture="amd64") as opened:
        verify.image(opened, materials.read(project) if project else None, report)
    assert report.checked
    return [each.message for each in report.differences]


@pytest.fixture
def layout(project: Path, tmp_path: Path) -> Path:
    return layouts.write(tmp_path / "image", {MODEL: CONTENT}, files(project))


def test_an_image_of_its_recipe_differs_in_nothing(layout: Path, project: Path, tmp_path: Path) -> None:
    assert check(layout, project) == []
    assert check(layouts.archive(layout, tmp_path / "image.tar"), project) == []
    assert check(layout, None) == []


def test_a_flipped_bit_is_found_in_every_blob(layout: Path, project: Path) -> None:
    found = layouts.real_blobs(layout)
    assert len(found) == 4  # two layers, configuration, manifest
    for blob in found:
        content = bytearray(blob.read_bytes())
        for at in (0, len(content) // 2, len(content) - 1):
            content[at] ^= 1
            blob.write_bytes(content)
            done = aikit_nix("verify", layout, "--flake", project, cwd=project)
            assert done.returncode == 1
            assert blob.name in done.stderr, done.stderr
            content[at] ^= 1
        blob.write_bytes(content)
    assert check(layout, project) == []


def test_a_flipped_bit_in_an_archive_is_found(layout: Path, project: Path, tmp_path: Path) -> None:
    file = layouts.archive(layout, tmp_path / "image.tar")
    content = file.read_bytes()
    at = content.index(CONTENT) + len(CONTENT) // 2
    file.write_bytes(content[:at] + b"X" + content[at + 1 :])
    (difference,) = check(file, project)
    assert difference.startswith(f"layer 1 of 2, {MODEL}: has sha256:")


def test_a_blob_that_is_cut_or_missing_is_named(layout: Path, project: Path) -> None:
    blob = next(blob for blob in layouts.real_blobs(layout) if blob.stat().st_size > len(CONTENT))
    blob.write_bytes(blob.read_bytes()[:-512])
    assert "and the manifest says" in check(layout, project)[0]
    blob.unlink()
    assert f"the blob sha256:{blob.name} is not in {layout}" in check(layout, project)[0]


def damaged(
    project: Path,
    tmp_path: Path,
    models: Mapping[str, bytes] | None = None,
    more: Mapping[str, bytes] | None = None,
    **packages: str,
) -> list[str]:
    content = {**files(project, **packages), **(more or {})}
    wanted = {MODEL: CONTENT} if models is None else models
    return check(layouts.write(tmp_path / "other", wanted, content), project)


def test_other_weights_than_locked_are_named(project: Path, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    found = damaged(project, tmp_path, {MODEL: other})
    assert [each.split(":")[0] for each in found] == [f"{what} of {MODEL}" for what in ("layer", "sha256", "BLAKE3")]
    assert recipes.sha256(other) in found[1]
    assert recipes.sha256(CONTENT) in found[1]


def test_a_model_more_or_less_is_named(project: Path, tmp_path: Path) -> None:
    found = damaged(project, tmp_path, {"/models/other.gguf": b"x"})
    assert found == [
        f"{MODEL}: the plan has it, the image has not",
        "/models/other.gguf: the image has it, the plan has not",
    ]


def test_a_package_of_another_version_is_named(project: Path, tmp_path: Path) -> None:
    found = damaged(project, tmp_path, libc6="2.1", extra="1")
    wanted = {package.name: package.version for package in materials.read(project).debs("x86_64-linux")}["libc6"]
    assert found == [
        "package extra 1: the image has it, the lock has not",
        f"package libc6: 2.1, and it should be {wanted}",
    ]


def test_another_text_is_named(project: Path, tmp_path: Path) -> None:
    text = materials.read(project).plan.files[0].path
    assert damaged(project, tmp_path, more={text.lstrip("/"): b"other"}) == [
        f"{text}: the image has another text than the plan"
    ]


@pytest.mark.parametrize("name", [MODEL.lstrip("/"), f".{MODEL}", "models/.wh.llama.gguf", "models/.wh..wh..opq"])
def test_a_layer_that_hides_a_model_is_named(project: Path, tmp_path: Path, name: str) -> None:
    (found,) = damaged(project, tmp_path, more={name: b"evil"})
    assert "it hides what a model's layer has" in found


@pytest.mark.parametrize(
    "entries",
    [
        [("models", "->evil"), ("evil/llama.gguf", b"evil")],
        [("models", b"")],
        [("m", "->models"), ("m/llama.gguf", b"evil")],
        [("a/b", "->../m"), ("m", "->/models"), ("a/b/llama.gguf", b"evil")],
        [("m", "->."), ("m/m/models/llama.gguf", b"evil")],
        [("../models/llama.gguf", b"evil")],
    ],
    ids=["a link", "a file", "through a link", "through two links", "through one link twice", "above the root"],
)
def test_a_model_is_hidden_by_what_lies_over_its_folder(
    tmp_path: Path, entries: list[tuple[str, bytes | str | None]]
) -> None:
    layout = layouts.write(tmp_path / "other", {MODEL: CONTENT}, {}, layer=layouts.layer(*entries))
    (found,) = check(layout, None)
    assert "it hides what a model's layer has" in found
    honest = layouts.layer(("models", None), ("m", "->models"), ("m", None), ("m/llama.gguf", b"own"))
    assert check(layouts.write(tmp_path / "honest", {MODEL: CONTENT}, {}, layer=honest), None) == []


def test_links_in_a_circle_are_no_layer_that_hides_nothing(tmp_path: Path) -> None:
    content = layouts.layer(("a", "->b"), ("b", "->a"), ("a/x", b""))
    (found,) = check(layouts.write(tmp_path / "image", {}, {}, layer=content), None)
    assert "links in it lead to each other" in found


def test_records_for_all_members_are_no_layer_that_hides_nothing(tmp_path: Path) -> None:
    """Python's reader gives all of them that name, Go's does not."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"path": "harmless"}) as archive:
        archive.addfile(tarfile.TarInfo(MODEL.lstrip("/")))
    (found,) = check(layouts.write(tmp_path / "image", {MODEL: CONTENT}, {}, layer=out.getvalue()), None)
    assert "records for all members" in found


@pytest.mark.parametrize("over", ["->other", None, "large"])
def test_a_text_is_what_lies_over_all_else(
    project: Path, tmp_path: Path, over: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_TEXT", 10_000)
    text = materials.read(project).plan.files[0].path
    content = b"x" * 10_001 if over == "large" else over
    own = [(name, each) for name, each in files(project).items()]
    layer = layouts.layer(*own, (text.lstrip("/"), content))
    found = check(layouts.write(tmp_path / "other", {MODEL: CONTENT}, {}, layer=layer), project)
    assert found == [f"{text}: the plan has it, the image has not"]


def test_a_blob_without_an_end_is_left(layout: Path) -> None:
    with Client() as client, blobs.opened(str(layout), client) as opened:
        report = verify.Report()
        endless = replace(opened, blocks=lambda _: itertools.repeat(bytes(1 << 20)))
        verify.image(endless, None, report)
    for difference, layer in zip(report.differences, opened.image.layers, strict=True):
        assert f"and the manifest says {layer.digest} of {layer.size:,}" in difference.message


@pytest.mark.parametrize("bomb", layouts.bombs().values(), ids=layouts.bombs())
def test_a_layer_that_cannot_be_read_is_no_layer_that_hides_nothing(tmp_path: Path, bomb: bytes) -> None:
    """Container engines may read on where this program does not."""
    layout = layouts.write(tmp_path / "image", {}, {"x": b"1"}, layer=bomb + layouts.layer(("models/.wh.m", b"")))
    (found,) = check(layout, None)
    assert "is no tar that can be read" in found


def test_a_label_that_lies_is_named(project: Path, tmp_path: Path) -> None:
    labels = {"aikit-nix.models": json.dumps({MODEL: f"sha256:{'0' * 64}", "/models/x": f"sha256:{'1' * 64}"})}
    layout = layouts.write(tmp_path / "other", {MODEL: CONTENT}, files(project), labels=labels)
    sha256 = recipes.sha256(CONTENT)
    assert check(layout, project) == [
        f"label of {MODEL}: {'0' * 64}, and it should be {sha256}",
        "/models/x: the image's label names it, and no layer has it",
    ]


def backwards() -> bytes:
    """A tar whose second entry has a size below nothing, by which Python 3.11's tarfile comes to it again for ever."""
    entry = bytearray(tarfile.TarInfo("x").tobuf())
    entry[156:157] = b"Z"
    entry[124:136] = (-512).to_bytes(12, "big", signed=True)
    entry[148:156] = b" " * 8
    entry[148:156] = b"%06o\0 " % sum(entry)
    folder = tarfile.TarInfo("models")
    folder.type = tarfile.DIRTYPE
    return folder.tobuf() + bytes(entry) + bytes(1024)


@pytest.mark.parametrize("tar", [layouts.tar({MODEL.lstrip("/"): CONTENT}), backwards()], ids=["other", "endless"])
def test_a_model_layer_that_is_not_by_the_rule_is_named(project: Path, tmp_path: Path, tar: bytes) -> None:
    layout = layouts.write(tmp_path / "other", {MODEL: CONTENT}, files(project))
    spec = json.loads((tmp_path / "other/spec.json").read_text())
    (tmp_path / "own.tar").write_bytes(tar)
    spec["models"][0] |= {
        "layer": {"digest": f"sha256:{recipes.sha256(tar)}", "size": len(tar)},
        "blob": str(tmp_path / "own.tar"),
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    shutil.rmtree(layout)
    layouts.script("layout.py", tmp_path / "spec.json", layout)
    assert "begins otherwise than the rule of model layers says" in check(layout, project)[0]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
@pytest.mark.parametrize("packed", [False, True])
def test_a_registry_is_read_packed_or_not(
    layout: Path, project: Path, tmp_path: Path, address: str, packed: bool
) -> None:
    options = [] if packed else ["--preserve-digests"]
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
    reference = f"{address}/a/llama:1"
    subprocess.run([*argv, f"oci:{layout}", f"docker://{reference}"], check=True, capture_output=True)
    assert check(reference, project) == []
    (stored,) = [
        file for file in (tmp_path / "registry").rglob("blobs/*/*/*/data") if file.stat().st_size > len(CONTENT)
    ]
    content = stored.read_bytes()
    stored.write_bytes(content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:])
    (difference,) = check(reference, project)
    assert difference.startswith(f"layer 1 of 2, {MODEL}: has sha256:")


@pytest.mark.usefixtures("nix")
def test_the_store_is_compared_with_the_lock(tmp_path: Path) -> None:
    content, project = os.urandom(100_000), tmp_path / "flake"
    recipes.write(project, content)
    done = aikit_nix("verify", cwd=project)
    assert done.returncode == 1
    assert f"{MODEL}: /nix/store/" in done.stderr
    (tmp_path / "llama.gguf").write_bytes(content)
    store.add(tmp_path / "llama.gguf", "llama.gguf", recipes.sha256(content))
    done = aikit_nix("verify", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "ok: BLAKE3 of /nix/store/" in done.stdout
    # The manifest's layout lacks the model, which is taken from the store
    thin = layouts.write(tmp_path / "thin", {MODEL: content}, files(project), with_models=False)
    assert check(thin, project) == []
    lock = project / "aikit.lock"
    (blake3,) = (file["blake3"] for file in json.loads(lock.read_text())["models"][0]["files"])
    lock.write_text(lock.read_text().replace(blake3, "0" * 64))
    done = aikit_nix("verify", cwd=project)
    assert done.returncode == 1
    assert "BLAKE3 of /nix/store/" in done.stderr


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_what_is_no_image_is_refused(tmp_path: Path, project: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    done = aikit_nix("verify", tmp_path / "file", cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
