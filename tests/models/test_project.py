"""Read and pin: what every command begins with, and what it never does without being told.

That local files enter the Nix store while they are read stands in test_store.py.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.aikitfile import yamltree
from aikit_nix.base.errors import AikitError
from aikit_nix.models import project as projects
from aikit_nix.models.project import Project
from aikit_nix.sources.gguf import Facts
from support import tiny_gguf

SHA = "1" * 64


def write(folder: Path, *sources: str, **more: Any) -> Path:
    models = [{"name": f"m{n}", "source": source, **more} for n, source in enumerate(sources)]
    (folder / "aikitfile.yaml").write_text(json.dumps({"apiVersion": "v1alpha1", "models": models}))
    return folder / "aikitfile.yaml"


def write_lock(folder: Path, source: str, *files: tuple[str, bytes], **more: Any) -> None:
    """A lock of the first model."""
    locked = [
        {"path": path, "url": None, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}
        for path, data in files
    ]
    entry = {"name": "m0", "source": source, "origin": {"kind": "local"}, "files": locked}
    (folder / "aikit.lock").write_text(json.dumps({"version": 1, "models": [entry]}))


def read(folder: Path, *sources: str, **more: Any) -> Project:
    return projects.read(write(folder, *sources, **more))


def refusals(project: Project) -> list[str]:
    with pytest.raises(AikitError) as refused:
        projects.pin(project)
    return [finding.message for finding in refused.value.diagnostics]


# --- Reading


def test_the_lock_beside_the_aikitfile_is_read_and_another_only_if_it_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "m.gguf")
    assert projects.read(path).lock is None
    write_lock(tmp_path, "m.gguf", ("/models/m.gguf", b"x"))
    project = projects.read(path)
    assert (project.folder, project.aikitfile.models[0].is_locked) == (tmp_path, True)
    with pytest.raises(AikitError, match=r"other\.lock is not there: write it with `aikit-nix lock --lock"):
        projects.read(path, lock_path=tmp_path / "other.lock")


def test_who_writes_the_lock_anew_is_not_stopped_by_the_broken_one(tmp_path: Path) -> None:
    path = write(tmp_path, "m.gguf")
    (tmp_path / "aikit.lock").write_text("{")
    assert projects.read_as_written(path).models[0].pin is None
    with pytest.raises(AikitError):
        projects.read(path)


def test_a_file_that_is_no_aikitfile_is_not_read_whole(tmp_path: Path) -> None:
    with pytest.raises(AikitError, match="write one with `aikit-nix init`"):
        yamltree.read_bytes(tmp_path / "nothing.yaml")
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(AikitError, match=f"more than {yamltree.MAX_BYTES} bytes"):
        yamltree.read_bytes(tmp_path / "huge")


# --- What is known of the models' heads


def test_the_lock_alone_says_what_is_in_a_model_that_it_has(tmp_path: Path) -> None:
    """Or the plan would be another one on a machine that has not the file."""
    tiny_gguf.make(tmp_path / "m.gguf", chat_template=None)
    (seen,) = projects.facts(read(tmp_path, "m.gguf")).values()
    assert (seen.chat_template, seen.context_length) == (False, 4096)
    data = (tmp_path / "m.gguf").read_bytes()
    write_lock(tmp_path, "m.gguf", ("/models/m.gguf", data))
    assert projects.facts(read(tmp_path, "m.gguf")) == {}
    write_lock(tmp_path, "m.gguf", ("/models/m.gguf", data), gguf={"chatTemplate": True, "contextLength": 7})
    assert projects.facts(read(tmp_path, "m.gguf")) == {"/models/m.gguf": Facts(True, 7)}


def test_of_a_model_that_is_not_there_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"<html>")
    assert projects.facts(read(tmp_path, "nothing.gguf", "bad.gguf", "hf://ns/repo")) == {}


# --- Pinning


def test_a_folder_becomes_a_model_a_file_and_its_templates_are_kept_once(tmp_path: Path) -> None:
    (tmp_path / "w/deep").mkdir(parents=True)
    for name in ("w/a.json", "w/deep/b.bin"):
        (tmp_path / name).write_text(name)
    project = read(tmp_path, "w", promptTemplates=[{"name": "t", "template": "x"}])
    pinned, local = projects.pin(project)
    assert [(model.path, len(model.prompt_templates)) for model in pinned.models] == [
        ("/models/w/a.json", 1),
        ("/models/w/deep/b.bin", 0),
    ]
    assert [file for _, file in local] == [tmp_path / "w/a.json", tmp_path / "w/deep/b.bin"]
    for model, file in local:
        assert model.pin
        data = file.read_bytes()
        assert (model.pin.sha256, model.pin.size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_locked_file_need_not_be_there_but_must_be_the_one(tmp_path: Path) -> None:
    write_lock(tmp_path, "m.gguf", ("/models/m.gguf", b"right"))
    project = read(tmp_path, "m.gguf")
    pinned, local = projects.pin(project)
    assert (pinned.models[0].pin, local) == (project.aikitfile.models[0].pin, ())
    (tmp_path / "m.gguf").write_bytes(b"wrong")
    (said,) = refusals(project)
    assert f"the lock says {hashlib.sha256(b'right').hexdigest()}" in said


def test_a_file_that_came_into_a_locked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/a").write_bytes(b"a")
    write_lock(tmp_path, "w", ("/models/w/a", b"a"))
    project = read(tmp_path, "w")
    projects.pin(project)
    (tmp_path / "w/new").write_bytes(b"")
    (said,) = refusals(project)
    assert said.startswith("/models/w/new is not in the lock, and in the folder")


def test_a_locked_folder_may_be_empty_but_holds_nothing_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    write_lock(tmp_path, "w", ("/models/w/a", b"a"))
    project = read(tmp_path, "w")
    assert projects.pin(project)[1] == ()
    (tmp_path / "w/b").symlink_to("nowhere")
    (said,) = refusals(project)
    assert said.startswith("source 'w' does not exist: its target is missing (w/b")


def test_everything_that_is_wrong_with_the_models_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_bytes(b"x")
    said = refusals(read(tmp_path, "nothing.gguf", "there.gguf", "w/empty", sha256=SHA))
    assert len(said) == 3
    assert ["does not exist" in each for each in said] == [True, False, True]
    assert "this is not the file that the aikitfile means" in said[1]
    said = refusals(read(tmp_path, "https://h.example/a", "hf://ns/repo", "there.gguf"))
    assert "the model `m0` is" in said[0]
    assert said[1] == "nothing says which file the model `m1` is: pin all 2 with `aikit-nix lock`"


# --- Links


def test_only_a_link_out_of_the_folder_whose_bytes_nobody_pinned_is_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"secret")
    (folder / "inside").write_bytes(b"x")
    (folder / "out.gguf").symlink_to("../outside")
    (folder / "in.gguf").symlink_to("inside")
    (folder / "broken.gguf").symlink_to("nowhere")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    sources = ["out.gguf", "in.gguf", "broken.gguf", "loop.gguf"]
    (warned,) = projects.links(read(folder, *sources).aikitfile.models, folder)
    assert warned.message == f"the source leads to {tmp_path}/outside: what is there goes into the image"
    pinned = read(folder, "out.gguf", sha256=hashlib.sha256(b"secret").hexdigest())
    assert list(projects.links(pinned.aikitfile.models, folder)) == []


def test_what_not_everybody_may_read_is_published_by_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "w").mkdir(parents=True)
    (tmp_path / "key").write_bytes(b"secret")
    (tmp_path / "key").chmod(0o640)
    for link in (folder / "m.gguf", folder / "w/deep"):
        link.symlink_to(tmp_path / "key")
    for source in ("m.gguf", "w"):
        (said,) = refusals(read(folder, source))
        assert f"leads to {tmp_path}/key, which not everybody may read" in said
    pinned, _ = projects.pin(read(folder, "m.gguf", sha256=hashlib.sha256(b"secret").hexdigest()))
    assert pinned.models[0].pin


def test_what_lies_in_a_private_folder_is_published_by_no_link(tmp_path: Path) -> None:
    """Whatever its own mode is; folders that are above the aikitfile too keep nobody out who may read that."""
    (tmp_path / "home/project").mkdir(parents=True)
    (tmp_path / "home/private/deep").mkdir(parents=True)
    file = tmp_path / "home/private/deep/key"
    file.write_bytes(b"secret")
    (tmp_path / "home/project/m.gguf").symlink_to(file)
    project = read(tmp_path / "home/project", "m.gguf")
    projects.pin(project)
    (tmp_path / "home").chmod(0o700)
    projects.pin(project)
    (tmp_path / "home/private").chmod(0o700)
    (said,) = refusals(project)
    assert f"leads to {file}, which not everybody may read" in said
    assert f"`chmod o+x {tmp_path}/home/private`" in said
    pinned, _ = projects.pin(read(tmp_path / "home/project", "m.gguf", sha256=hashlib.sha256(b"secret").hexdigest()))
    assert pinned.models[0].pin
