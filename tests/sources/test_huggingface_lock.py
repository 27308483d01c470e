"""`lock` and `fetch` with a stand-in for Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_gguf
from support.hugging_face import HuggingFace
from support.locks import digest, done, in_store, locked, only_file, refused, write

pytestmark = pytest.mark.usefixtures("nix", "hub")


@pytest.mark.parametrize("xet", [False, True])
def test_a_file_of_hugging_face_is_pinned_without_its_weights(
    tmp_path: Path, hub: HuggingFace, model: bytes, xet: bool
) -> None:
    large = model + bytes(64 << 20)
    card = {"license": "apache-2.0", "base_model": "upstream/base"}
    commit = hub.repository(xet=xet, card=card).commit({"m.gguf": large, "README.md": b"read me"})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    said = done(tmp_path, "lock")
    assert "+ m: sha256" in said
    (entry,) = locked(tmp_path)
    assert entry["origin"] == {
        "kind": "huggingface",
        "repository": "ns/repo",
        "revision": commit,
        "license": "apache-2.0",
        "baseModels": ["upstream/base"],
    }
    assert entry["files"] == [
        {
            "path": "/models/m.gguf",
            "url": f"https://huggingface.co/ns/repo/resolve/{commit}/m.gguf",
            "size": len(large),
            "sha256": digest(large),
            "gguf": tiny_gguf.FACTS,
        }
    ]
    # Only the head is read, which the bytes in the sockets' buffers come on top of.
    assert [request.headers.get("range") for request in hub.cdn_requests] == [f"bytes=0-{(64 << 20) - 1}"]
    assert not in_store("m.gguf", large)

    assert "up to date" in done(tmp_path, "lock")
    before = len(hub.requests)
    done(tmp_path, "lock", "--check")
    done(tmp_path, "lock", "--offline")
    assert len(hub.requests) == before


def test_an_endpoint_may_have_a_path(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.below = "/mirrors/hf"
    commit = hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    env = {"HF_ENDPOINT": f"{hub.url}/mirrors/hf/"}
    done(tmp_path, "lock", env=env)
    # Whoever asked whom, the lock has Hugging Face's own address
    assert only_file(tmp_path)["url"] == f"https://huggingface.co/ns/repo/resolve/{commit}/m.gguf"
    done(tmp_path, "fetch", env=env)
    assert in_store("m.gguf", model)
    assert refused(tmp_path, "lock", "--update", "m")  # HF_ENDPOINT without the path


def test_a_branch_that_moves_changes_nothing_until_the_lock_is_updated(
    tmp_path: Path, hub: HuggingFace, model: bytes
) -> None:
    there = hub.repository()
    first = there.commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    second = there.commit({"m.gguf": model + b"other"})
    done(tmp_path, "fetch")
    assert in_store("m.gguf", model)
    assert locked(tmp_path)[0]["origin"]["revision"] == first
    assert "~ m: sha256" in done(tmp_path, "lock", "--update", "m")
    assert locked(tmp_path)[0]["origin"]["revision"] == second
    done(tmp_path, "lock", "--update")
    assert "no model of that name" in refused(tmp_path, "lock", "--update", "other")


def test_a_renamed_repository(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    commit = hub.repository("ns/new").commit({"m.gguf": model})
    hub.moved["ns/repo"] = "ns/new"
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    # By the name that the aikitfile says, which leads there: what is printed of a model is what was asked for
    assert only_file(tmp_path)["url"] == f"https://huggingface.co/ns/repo/resolve/{commit}/m.gguf"
    assert locked(tmp_path)[0]["origin"]["repository"] == "ns/repo"
    done(tmp_path, "fetch")
    assert in_store("m.gguf", model)


def test_a_file_that_git_keeps_itself_is_downloaded_once(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository(lfs=()).commit({"m.gguf": model})
    write(tmp_path, ("m", "https://huggingface.co/ns/repo/resolve/main/m.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["sha256"] == digest(model)
    assert only_file(tmp_path)["layer"]
    assert in_store("m.gguf", model)


@pytest.mark.parametrize(
    "source",
    [
        "https://huggingface.co/ns/repo/blob/main/dir/m.gguf",
        "https://hf.co/ns/repo/resolve/main/dir/m.gguf?download=true",
        "https://www.huggingface.co/ns/repo/raw/main/dir/m.gguf",
    ],
)
def test_addresses_of_pages_are_understood(tmp_path: Path, hub: HuggingFace, model: bytes, source: str) -> None:
    commit = hub.repository().commit({"dir/m.gguf": model})
    write(tmp_path, ("m", source))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["url"] == f"https://huggingface.co/ns/repo/resolve/{commit}/dir/m.gguf"
    assert only_file(tmp_path)["path"] == "/models/m.gguf"


def test_a_whole_repository_says_which_files_it_takes(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    files = {"config.json": b"{}", "sub/model.safetensors": b"weights", "README.md": b"x", ".gitattributes": b"x"}
    there = hub.repository()
    there.commit({"m.gguf": model})
    there.commit(files, "v1")
    write(tmp_path, ("m", "huggingface://ns/repo@v1"))
    said = done(tmp_path, "lock")
    assert "/models/ns/repo/config.json, 2 B" in said
    assert "/models/ns/repo/sub/model.safetensors, 7 B" in said
    assert [file["path"] for file in locked(tmp_path)[0]["files"]] == [
        "/models/ns/repo/config.json",
        "/models/ns/repo/sub/model.safetensors",
    ]
    done(tmp_path, "fetch")
    done(tmp_path, "gen", "--elsewhere")
    plan = json.loads((tmp_path / "flake/aikit/plan.json").read_text())
    assert [file["path"] for file in plan["models"]] == [file["path"] for file in locked(tmp_path)[0]["files"]]


def test_a_repository_of_alternatives_is_refused(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m-Q4.gguf": model, "m-Q8.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo"))
    assert "alternatives of one another: name one, as huggingface://ns/repo/m-Q4.gguf" in refused(tmp_path, "lock")


def test_a_sharded_gguf_is_completed_or_refused(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    there = hub.repository()
    there.commit({name: model + name.encode() for name in names})
    write(tmp_path, ("m", f"huggingface://ns/repo/{names[0]}"))
    said = done(tmp_path, "lock")
    assert all(f"/models/{name}, " in said for name in names)
    assert [file["path"] for file in locked(tmp_path)[0]["files"]] == [f"/models/{name}" for name in names]

    write(tmp_path, *((f"m{number}", f"huggingface://ns/repo/{name}") for number, name in enumerate(names)))
    done(tmp_path, "lock")
    assert [len(entry["files"]) for entry in locked(tmp_path)] == [1, 1, 1]

    write(tmp_path, ("m", f"huggingface://ns/repo/{names[1]}"))
    assert f"name the first, {names[0]}" in refused(tmp_path, "lock")

    there.commit(dict.fromkeys(names[:2], model))
    write(tmp_path, ("m", f"huggingface://ns/repo/{names[0]}"))
    assert f"of which the repository lacks {names[2]}" in refused(tmp_path, "lock")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("huggingface://ns/none/m.gguf", "ns/none on Hugging Face is not there: check the name, or set HF_TOKEN"),
        ("huggingface://ns/private/m.gguf", "ns/private on Hugging Face is not there: check the name, or set HF_TOKEN"),
        ("huggingface://ns/repo/none.gguf", "is not in the repository, which has: m.gguf"),
        ("huggingface://ns/repo/v9/m.gguf", "has no branch, tag or commit 'v9'"),
        ("huggingface://ns/repo", None),
    ],
)
def test_what_hugging_face_refuses(
    tmp_path: Path, hub: HuggingFace, model: bytes, source: str, message: str | None
) -> None:
    hub.repository().commit({"m.gguf": model})
    hub.repository("ns/private", private=True).commit({"m.gguf": model})
    (tmp_path / "aikit.lock").write_text('{"version": 1, "models": []}\n')
    write(tmp_path, ("my-model", source))
    if message is None:
        done(tmp_path, "lock")
        return
    said = refused(tmp_path, "lock")
    assert message in said
    assert "my-model" in said
    assert "aikitfile.yaml:3:" in said
    assert (tmp_path / "aikit.lock").read_text() == '{"version": 1, "models": []}\n'


def test_too_many_requests(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    hub.busy = 1
    done(tmp_path, "lock")
    hub.busy = 1000
    assert "too many requests" in refused(tmp_path, "lock", "--update")


def test_the_head_is_optional(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    """Not a GGUF, or one that nobody may read: pinned all the same."""
    hub.repository().commit({"m.gguf": b"no GGUF at all"})
    hub.repository("ns/gated", gated=True).commit({"g.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("g", "huggingface://ns/gated/g.gguf"))
    done(tmp_path, "lock")
    assert not any("gguf" in file for entry in locked(tmp_path) for file in entry["files"])


def test_a_sha256_that_disagrees_with_hugging_face(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), sha256="1" * 64)
    said = refused(tmp_path, "lock")
    assert "1" * 64 in said
    assert digest(model) in said
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), sha256=digest(model))
    done(tmp_path, "lock")
