"""The image of the Debian set as Nix builds it: what it reads, what it rebuilds, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aikit_nix.debian import mirror
from aikit_nix.nix import store
from support.image import unpack
from support.library import Library, digest, model, requisites


def test_the_manifest_is_built_where_no_model_has_ever_been(library: Library, tmp_path: Path) -> None:
    absent = model(tmp_path, os.urandom(64), add=False)
    manifest = library.build("manifest", models=[absent])
    assert "gguf" not in requisites(manifest)
    for output in ("oci", "stream"):
        done = library.try_build(output, models=[absent])
        assert done.returncode != 0
        assert "Put it there." in done.stderr
    model(tmp_path, (tmp_path / "tiny.gguf").read_bytes())
    oci = library.build("oci", models=[absent])
    assert digest(oci) == digest(manifest)
    assert unpack(oci, tmp_path / "root").layers[0].digest == absent["layer"]["digest"]


def test_after_a_change_of_a_text_no_model_is_needed(library: Library, tmp_path: Path) -> None:
    """Its layer is there already: the file itself may be gone."""
    here = model(tmp_path, os.urandom(64))
    texts = [[{"path": "/config.yaml", "text": text}] for text in ("one", "two")]
    before = library.build("oci", models=[here], files=texts[0])
    link = before / "blobs/sha256" / here["layer"]["digest"].removeprefix("sha256:")
    file = store.store_path(here["name"], here["sha256"])
    subprocess.run(["nix-store", "--delete", "--ignore-liveness", file], check=True, capture_output=True)
    after = library.build("oci", models=[here], files=texts[1])
    assert not file.exists()
    assert (after / "blobs/sha256" / link.name).readlink() == link.readlink()
    one, two = unpack(before), unpack(after)
    assert one.layers[:-1] == two.layers[:-1]
    assert one.layers[-1].digest != two.layers[-1].digest


def test_a_layer_that_is_not_known_is_computed(library: Library, tmp_path: Path) -> None:
    known = model(tmp_path, os.urandom(64), "/models/日本 語/m.gguf")
    unknown = known | {"layer": None, "size": None}
    for output in ("manifest", "oci"):
        assert digest(library.build(output, models=[unknown])) == digest(library.build(output, models=[known]))
    assert "gguf" not in requisites(library.build("manifest", models=[unknown]))


def test_a_layer_that_the_plan_gets_wrong_is_refused(library: Library, tmp_path: Path) -> None:
    right = model(tmp_path, os.urandom(64))
    wrong = right | {"layer": right["layer"] | {"digest": f"sha256:{'1' * 64}"}}
    assert "hash mismatch" in library.try_build("oci", models=[wrong]).stderr
    done = library.try_build("archive", models=[wrong])
    assert done.returncode != 0
    assert "the image is not complete: /models/tiny.gguf" in done.stderr


def test_every_runtime_has_every_form(library: Library, tmp_path: Path) -> None:
    models = [model(tmp_path, b"of a runtime")]
    image = unpack(library.build("image-avx.oci", models=models))
    assert image.run["Labels"]["aikit-nix.runtime"] == image.run["Labels"]["org.opencontainers.image.version"] == "avx"
    assert digest(library.build("image-avx.manifest", models=models)) != digest(
        library.build("manifest", models=models)
    )


def test_models_lie_in_the_order_of_their_paths(library: Library, tmp_path: Path) -> None:
    paths = ["/models/b.gguf", "/models/a.gguf", "/models/a/z.gguf", "/models/B.gguf"]
    models = [model(tmp_path, path.encode(), path) for path in paths]
    image = unpack(library.build("default", models=models), tmp_path / "root")
    assert [layer.files for layer in image.layers[:4]] == [(path,) for path in sorted(paths)]
    # The first that the aikitfile names, not the lowest layer.
    assert (tmp_path / "root/models/model.file").readlink() == Path("b.gguf")


@pytest.mark.parametrize("name", ["ghcr.io/me/llama", "x" * 255, "a/" + "y-z" * 80, "0"])
def test_an_image_may_have_any_name(library: Library, tmp_path: Path, name: str) -> None:
    one = [model(tmp_path, b"named")]
    image = unpack(library.build("archive", models=one, image={"name": name, "tag": None, "labels": {}}))
    assert image.names == (f"{name}:avx2",)


def test_a_hundred_models_are_the_most(library: Library, tmp_path: Path) -> None:
    models = [model(tmp_path, b"m", f"/models/{n}.gguf") for n in range(101)]
    layout = library.build("manifest", models=models[:100])
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    assert 100 < len(manifest["layers"]) <= 127
    assert "101 models" in library.try_build("manifest", models=models).stderr


def test_an_image_may_have_no_model(library: Library) -> None:
    image = unpack(library.build("default", models=[]))
    assert "/models/model.file" not in image.layers[-1].files


def test_a_model_may_be_called_model_file(library: Library, tmp_path: Path) -> None:
    named = model(tmp_path, b"m", "/models/model.file")
    unpack(library.build("default", models=[named]), tmp_path / "root")
    assert (tmp_path / "root/models/model.file").read_bytes() == b"m"


def test_a_plan_of_another_format_is_refused(library: Library) -> None:
    done = library.try_build("manifest", formatVersion=3)
    assert done.returncode != 0
    assert "reads plans of format 2" in done.stderr


@pytest.mark.parametrize("output", ["manifest", "oci", "stream", "archive"])
def test_a_second_build_gives_the_same(library: Library, tmp_path: Path, output: str) -> None:
    models = [model(tmp_path, b"again")]
    library.build(output, models=models)
    argv = library.argv("nix-build", output, models=models)
    done = subprocess.run([*argv, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("which", ["the machine's", "a newer one"])
def test_a_fresh_store_gets_the_same_image(
    library: Library, tmp_path: Path, which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in it before, .debs neither, which Nix itself fetches. The newer is Debian 13's, where the machine's is older."""
    monkeypatch.setenv(mirror.MIRROR, mirror.machine_mirror() or "")
    program: str | Path = "nix-build"
    if which != "the machine's":
        program = request.getfixturevalue("newer_programs") / "nix-build"
    models = [model(tmp_path, b"bit for bit")]
    place = tmp_path / "store"
    argv = ["nix-store", "--store", str(place), "--add-fixed", "sha256", str(tmp_path / "tiny.gguf")]
    subprocess.run(argv, check=True, capture_output=True)
    options = ["--store", str(place), "--option", "sandbox-paths", ""]
    done = subprocess.run([*library.argv(program, "oci", models=models), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    theirs, ours = Path(f"{place}{done.stdout.strip()}"), library.build("oci", models=models)
    assert digest(theirs) == digest(ours)
    blobs = sorted(blob.name for blob in (ours / "blobs/sha256").iterdir())
    assert sorted(blob.name for blob in (theirs / "blobs/sha256").iterdir()) == blobs
    for blob in blobs:
        link = theirs / "blobs/sha256" / blob
        file = Path(f"{place}{link.readlink()}") if link.is_symlink() else link
        assert hashlib.sha256(file.read_bytes()).hexdigest() == blob
    subprocess.run(["chmod", "-R", "u+w", place], check=True)
    shutil.rmtree(place)  # pytest keeps its folders for some runs


def test_an_image_of_debians_files_has_no_store_path(library: Library, tmp_path: Path) -> None:
    root = tmp_path / "root"
    image = unpack(library.build("oci", models=[model(tmp_path, b"m")]), root)
    assert not any(layer.store_paths for layer in image.layers)
    assert not (root / "nix").exists()
    # Engines delete images by their age: it is that of the packages
    assert (
        image.configuration["created"] == json.loads((library.folder / "packages/debian/lock.json").read_text())["date"]
    )
    assert (root / "usr/libexec/aikit-nix").stat().st_mode & 0o777 == 0o755
    assert [step["created_by"] for step in image.configuration["history"]][-3:] == [
        "Debian packages",
        "engine",
        "texts",
    ]
