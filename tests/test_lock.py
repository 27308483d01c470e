"""`aikit-nix lock` and `fetch` as a user runs them, with a stand-in for Hugging Face, a web server and the real Nix store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from aikit_nix import store
from aikit_nix.sources import huggingface
from support import tiny_gguf
from support.command import aikit_nix
from support.file_server import Failure, FileServer
from support.hugging_face import SIGNATURE, TOKEN, HuggingFace

pytestmark = pytest.mark.usefixtures("nix", "hub")


def write(folder: Path, *models: tuple[str, str], more: str = "", sha256: str | None = None) -> None:
    lines = [f'  - {{name: "{name}", source: "{source}"}}' for name, source in models]
    if sha256:
        lines[0] = lines[0].replace("}", f', sha256: "{sha256}"}}')
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n" + "\n".join(lines) + f"\n{more}")


def run(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return aikit_nix(*args, cwd=folder, env={**os.environ, **env} if env else None)


def done(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command that succeeds says."""
    result = run(folder, *args, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def refused(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command says that fails as it should."""
    result = run(folder, *args, env=env)
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result.stderr


def locked(folder: Path) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads((folder / "aikit.lock").read_text())["models"]
    return models


def only_file(folder: Path) -> dict[str, Any]:
    (model,) = locked(folder)
    (file,) = model["files"]
    found: dict[str, Any] = file
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_store(file_name: str, data: bytes) -> bool:
    return store.present([(file_name, digest(data))])[0]


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    """A GGUF that is in no store yet."""
    file = tiny_gguf.make(tmp_path / "made.gguf", name=os.urandom(8).hex())
    data = file.read_bytes()
    file.unlink()
    return data


# --- Hugging Face


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
            "gguf": {"chatTemplate": True, "contextLength": 4096},
        }
    ]
    # Only the head is read, which the bytes in the sockets' buffers come on top of.
    assert [request.headers.get("range") for request in hub.cdn_requests] == [f"bytes=0-{(32 << 20) - 1}"]
    assert not in_store("m.gguf", large)

    assert "up to date" in done(tmp_path, "lock")
    before = len(hub.requests)
    done(tmp_path, "lock", "--check")
    done(tmp_path, "lock", "--offline")
    assert len(hub.requests) == before


def test_fetch_brings_it_and_completes_the_lock(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    assert "1 of them new" in done(tmp_path, "fetch")
    assert in_store("m.gguf", model)
    file = only_file(tmp_path)
    assert len(file["blake3"]) == 64
    assert file["layer"]["digest"].startswith("sha256:")
    assert "0 of them new" in done(tmp_path, "fetch")
    assert "up to date" in done(tmp_path, "lock", "--update")


def test_fetch_completes_the_lock_from_the_store(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    (tmp_path / "there.gguf").write_bytes(model)
    store.add(tmp_path / "there.gguf", "m.gguf", digest(model))
    done(tmp_path, "lock")
    said = done(tmp_path, "fetch")
    assert "0 of them new" in said
    assert "what the bytes say" in said
    assert only_file(tmp_path)["layer"]


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
    assert only_file(tmp_path)["url"] == f"https://huggingface.co/ns/new/resolve/{commit}/m.gguf"
    done(tmp_path, "fetch")


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
    plan = json.loads((tmp_path / "aikit/plan.json").read_text())
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


@pytest.mark.parametrize("how", ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"])
def test_a_gated_model_with_the_users_token(tmp_path: Path, hub: HuggingFace, model: bytes, how: str) -> None:
    """The token goes to Hugging Face alone, and is written nowhere."""
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["private"] is True
    assert only_file(tmp_path)["sha256"] == digest(model)
    said = refused(tmp_path, "fetch")
    assert "accept the model's terms on https://huggingface.co/ns/gated, and set HF_TOKEN" in said

    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN + "\n")
    env = {"HF_TOKEN": TOKEN} if how == "HF_TOKEN" else {how: str(home / "token" if how == "HF_TOKEN_PATH" else home)}
    said = done(tmp_path, "--verbose", "lock", "--update", env=env)
    said += done(tmp_path, "--verbose", "fetch", env=env)
    assert in_store("m.gguf", model)
    assert only_file(tmp_path)["gguf"] == {"chatTemplate": True, "contextLength": 4096}
    assert any(request.headers.get("authorization") == f"Bearer {TOKEN}" for request in hub.requests)
    assert not [request for request in hub.cdn_requests if "authorization" in request.headers]
    assert TOKEN not in said
    assert SIGNATURE not in said
    home_files = {home / "token"}
    for file in tmp_path.rglob("*"):
        if file.is_file() and file not in home_files:
            assert TOKEN.encode() not in file.read_bytes(), file
            assert SIGNATURE.encode() not in file.read_bytes(), file


def test_a_lock_cannot_send_the_token_elsewhere(
    tmp_path: Path, files: FileServer, hub: HuggingFace, model: bytes
) -> None:
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    files.files["/m.gguf"] = model
    text = (tmp_path / "aikit.lock").read_text()
    for url in (
        f"{files.url}/m.gguf",
        "https://huggingface.co.evil.invalid/m.gguf",
        "https://huggingface.co@evil.invalid/m",
    ):
        (tmp_path / "aikit.lock").write_text(text.replace(only_file(tmp_path)["url"], url))
        result = run(tmp_path, "--verbose", "fetch", env={"HF_TOKEN": TOKEN, "HF_ENDPOINT": ""})
        assert "Traceback" not in result.stderr
        (tmp_path / "aikit.lock").write_text(text)
    assert files.requests
    assert not [request for request in files.requests if "authorization" in request.headers]
    assert huggingface.request("https://huggingface.co.evil.invalid/m.gguf") == (
        "https://huggingface.co.evil.invalid/m.gguf",
        {},
    )


def test_a_gated_model_whose_terms_are_not_accepted(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository("ns/gated", gated=True, terms=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock", env={"HF_TOKEN": TOKEN})
    assert "accept the model's terms" in refused(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})


def test_a_private_repository(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository("ns/private", private=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/private/m.gguf"))
    done(tmp_path, "lock", env={"HF_TOKEN": TOKEN})
    assert only_file(tmp_path)["private"] is True
    done(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})
    assert in_store("m.gguf", model)
    wrong = {"HF_TOKEN": "hf_thisOneIsWrong0123456789abcdefgh"}
    said = refused(tmp_path, "lock", "--update", env=wrong)
    assert "HF_TOKEN" in said
    assert wrong["HF_TOKEN"] not in said


def test_nix_build_of_a_gated_model_says_what_brings_it(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian")
    plan = json.loads((tmp_path / "aikit/plan.json").read_text())
    assert plan["models"][0]["url"] is None
    build = ["nix", "build", f"path:{tmp_path}#models", "--no-link"]
    failed = subprocess.run(build, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "Run `aikit-nix fetch` beside the aikitfile" in failed.stderr
    done(tmp_path, "fetch", env={"HF_TOKEN": TOKEN})
    assert in_store("m.gguf", model)
    subprocess.run(build, check=True)


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


# --- Web servers


def test_a_file_behind_a_url_is_downloaded_once(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    file = only_file(tmp_path)
    assert (file["sha256"], file["size"], file["gguf"]) == (
        digest(model),
        len(model),
        {"chatTemplate": True, "contextLength": 4096},
    )
    assert file["blake3"]
    assert file["layer"]
    assert in_store("m.gguf", model)
    count = files.count("/m.gguf")
    assert "0 of them new" in done(tmp_path, "fetch")
    assert files.count("/m.gguf") == count


def test_a_sha256_of_the_aikitfile_saves_the_download(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"), sha256=digest(model))
    done(tmp_path, "lock")
    assert not in_store("m.gguf", model)
    assert only_file(tmp_path)["size"] == len(model)
    assert only_file(tmp_path)["gguf"]["contextLength"] == 4096
    files.files["/m.gguf"] = model + b"changed"
    assert "it is another file" in refused(tmp_path, "fetch")
    files.files["/m.gguf"] = model[:-1] + bytes([model[-1] ^ 1])
    said = refused(tmp_path, "fetch")
    assert digest(model) in said
    assert digest(files.files["/m.gguf"]) in said
    assert not in_store("m.gguf", model)
    files.files["/m.gguf"] = model
    done(tmp_path, "fetch")
    assert in_store("m.gguf", model)


def test_one_failure_of_several_loses_nothing(tmp_path: Path, files: FileServer, model: bytes) -> None:
    """The old lock stays, every failure is named, and what arrived is not downloaded again."""
    files.files["/a.gguf"] = model
    write(tmp_path, ("a", f"{files.url}/a.gguf"), ("b", f"{files.url}/b.gguf"), ("c", f"{files.url}/c.gguf"))
    (tmp_path / "aikit.lock").write_text('{"version": 1, "models": []}\n')
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:4:" in said
    assert "aikitfile.yaml:5:" in said
    assert "answered 404" in said
    assert (tmp_path / "aikit.lock").read_text() == '{"version": 1, "models": []}\n'
    files.files["/b.gguf"] = files.files["/c.gguf"] = model + b"2"
    done(tmp_path, "lock")
    got = [request.method for request in files.requests if request.path == "/a.gguf"]
    assert got == ["GET", "HEAD"]
    assert not list((tmp_path / "cache/aikit-nix/downloads").glob("*.pins"))


def test_what_was_learned_is_forgotten_where_the_file_changed(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/a.gguf"] = model
    write(tmp_path, ("a", f"{files.url}/a.gguf"), ("b", f"{files.url}/b.gguf"))
    refused(tmp_path, "lock")
    files.files["/a.gguf"] = files.files["/b.gguf"] = model + b"new"
    done(tmp_path, "lock")
    assert [entry["files"][0]["sha256"] for entry in locked(tmp_path)] == [digest(model + b"new")] * 2


def test_all_shards_behind_a_url(tmp_path: Path, files: FileServer, model: bytes) -> None:
    for number in (1, 2):
        files.files[f"/my dir/my m-0000{number}-of-00002.gguf"] = model + bytes([number])
    write(tmp_path, ("m", f"{files.url}/my%20dir/my%20m-00001-of-00002.gguf?download=true"))
    done(tmp_path, "lock")
    (entry,) = locked(tmp_path)
    assert [(file["path"], file["sha256"]) for file in entry["files"]] == [
        (f"/models/my m-0000{number}-of-00002.gguf", digest(model + bytes([number]))) for number in (1, 2)
    ]
    del files.files["/my dir/my m-00002-of-00002.gguf"]
    assert "my m-00002-of-00002.gguf" in refused(tmp_path, "lock", "--update")


def test_one_source_under_two_names(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("a/x", f"{files.url}/m.gguf"), ("b/x", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    assert [(entry["name"], entry["files"][0]["path"]) for entry in locked(tmp_path)] == [
        ("a/x", "/models/a/m.gguf"),
        ("b/x", "/models/b/m.gguf"),
    ]
    done(tmp_path, "gen", "--elsewhere")
    write(tmp_path, ("a", f"{files.url}/m.gguf"), ("b", f"{files.url}/m.gguf"))
    assert "lands on /models/m.gguf" in refused(tmp_path, "lock")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(401), "asks for a login"),
        (Failure(403), "does not let you have it"),
        (Failure(404), "is not there"),
    ],
)
def test_refusals_of_a_web_server(tmp_path: Path, files: FileServer, failure: Failure, message: str) -> None:
    files.files["/m.gguf"] = b"x"
    files.failures["/m.gguf"] = [failure] * 9
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = refused(tmp_path, "lock")
    assert message in said
    assert "aikitfile.yaml:3:" in said
    assert not (tmp_path / "aikit.lock").exists()


def test_a_web_server_that_misbehaves(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    files.failures["/m.gguf"] = [
        Failure(cut=1000),
        Failure(503, {"Retry-After": "0"}),
        Failure(429, {"Retry-After": "1"}),
        Failure(cut=100_000),
    ]
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["sha256"] == digest(model)


def test_a_redirect_to_another_host(tmp_path: Path, files: FileServer, hub: HuggingFace, model: bytes) -> None:
    commit = hub.repository().commit({"m.gguf": model})
    files.redirects["/m.gguf"] = f"{hub.cdn_url}/ns/repo/{commit}/m.gguf?X-Amz-Signature={SIGNATURE}"
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = done(tmp_path, "--verbose", "lock")
    assert only_file(tmp_path)["url"] == f"{files.url}/m.gguf"
    assert SIGNATURE not in said


@pytest.mark.parametrize(
    "query",
    ["token=x", "access_token=x", "X-Amz-Signature=x", "sig=x", "apikey=x", "api_key=x", "password=x", "private_token=x",
     "Signature=x", "x-goog-signature=x", "X-Amz-Credential=x", "key=x", "auth=x", "AWSAccessKeyId=x", "secret=x"],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_early(tmp_path: Path, query: str) -> None:
    write(tmp_path, ("m", f"https://example.com/m.gguf?{query}"))
    for command in ("check", "lock", "gen"):
        assert "carries a secret in its query" in refused(tmp_path, command)


@pytest.mark.parametrize("query", ["download=true", "author=x", "keyword=x", "monkey=x", "tokenizer=x", "v=1", "raw"])
def test_a_url_with_a_harmless_query(tmp_path: Path, files: FileServer, model: bytes, query: str) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf?{query}"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["url"] == f"{files.url}/m.gguf?{query}"


# --- Local files


def test_local_files_and_folders(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    (tmp_path / "exl2/sub").mkdir(parents=True)
    (tmp_path / "exl2/config.json").write_text("{}")
    (tmp_path / "exl2/sub/output.safetensors").write_bytes(b"weights")
    write(tmp_path, ("m", "m.gguf"), ("exl2", "exl2"))
    said = done(tmp_path, "lock", "--offline")
    assert "/models/exl2/config.json, 2 B" in said
    paths = {entry["name"]: [file["path"] for file in entry["files"]] for entry in locked(tmp_path)}
    assert paths == {
        "m": ["/models/m.gguf"],
        "exl2": ["/models/exl2/config.json", "/models/exl2/sub/output.safetensors"],
    }
    done(tmp_path, "gen", "--elsewhere")
    plan = (tmp_path / "aikit/plan.json").read_bytes()
    done(tmp_path, "explain")
    assert "no mistakes found" in done(tmp_path, "check")

    (tmp_path / "exl2/new.json").write_text("{}")
    assert "/models/exl2/new.json is not in the lock" in refused(tmp_path, "gen", "--elsewhere")
    (tmp_path / "exl2/new.json").unlink()
    (tmp_path / "exl2/config.json").write_text("[]")
    assert "the lock says" in refused(tmp_path, "gen", "--elsewhere")
    assert "~ exl2: 2 files" in done(tmp_path, "lock")
    (tmp_path / "exl2/config.json").write_text("{}")
    done(tmp_path, "lock")

    # Another machine, which has not all the files: the lock knows them
    (tmp_path / "exl2/config.json").unlink()
    (tmp_path / "m.gguf").unlink()
    done(tmp_path, "gen", "--elsewhere")
    assert (tmp_path / "aikit/plan.json").read_bytes() == plan


def test_the_plan_is_the_same_with_and_without_the_file(tmp_path: Path) -> None:
    """A GGUF without a chat template gets one in the image: the lock says it, not the file."""
    tiny_gguf.make(tmp_path / "base.gguf", name=os.urandom(8).hex(), chat_template=None)
    write(tmp_path, ("base", "base.gguf"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["gguf"] == {"chatTemplate": False, "contextLength": 4096}
    plans = []
    for _ in range(2):
        done(tmp_path, "gen", "--packages", "debian", "--elsewhere")
        plans.append((tmp_path / "aikit/plan.json").read_text())
        (tmp_path / "base.gguf").unlink(missing_ok=True)
    assert plans[0] == plans[1]
    assert "chat-template-file" in plans[0]


def test_the_plan_knows_the_head_of_a_remote_file(tmp_path: Path, hub: HuggingFace) -> None:
    """Without a chat template in the GGUF, llama-server is told one; and no more context than it was trained for."""
    made = tiny_gguf.make(tmp_path / "made.gguf", name=os.urandom(8).hex(), chat_template=None)
    hub.repository().commit({"base.gguf": made.read_bytes()})
    config = "config: |\n  - name: base\n    context_size: 9999\n    parameters: {model: base.gguf}\n"
    write(tmp_path, ("base", "huggingface://ns/repo/base.gguf"), more=config)
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian", "--elsewhere")
    assert "chat-template-file" in (tmp_path / "aikit/plan.json").read_text()
    said = done(tmp_path, "check")
    assert "context_size 9999 is more than the 4096 tokens that base.gguf was trained for" in said


def test_local_shards(tmp_path: Path, model: bytes) -> None:
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    (tmp_path / names[0]).write_bytes(model)
    write(tmp_path, ("m", names[0]))
    assert f"does not exist: put the file there ({names[1]}" in refused(tmp_path, "lock")
    (tmp_path / names[1]).write_bytes(model + b"2")
    done(tmp_path, "lock")
    assert [file["path"] for file in locked(tmp_path)[0]["files"]] == [f"/models/{name}" for name in names]
    done(tmp_path, "gen", "--elsewhere")
    write(tmp_path, ("m", names[1]))
    assert f"name the first, {names[0]}" in refused(tmp_path, "lock")


# --- The lock itself


def test_the_lock_is_the_same_on_every_machine(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    text = (tmp_path / "aikit.lock").read_text()
    assert hub.url not in text
    assert str(tmp_path) not in text
    (tmp_path / "aikit.lock").unlink()
    done(tmp_path, "lock", env={"XDG_CACHE_HOME": str(tmp_path / "other")})
    assert (tmp_path / "aikit.lock").read_text() == text


def test_check_wants_neither_network_nor_models(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    (tmp_path / "local.gguf").write_bytes(model)
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("l", "local.gguf"))
    assert refused(tmp_path, "lock", "--check").count("is not in the lock: run `aikit-nix lock`") == 2
    done(tmp_path, "lock")
    (tmp_path / "local.gguf").unlink()
    before = (tmp_path / "aikit.lock").read_bytes()
    for args in (["lock", "--check"], ["check"], ["explain"], ["gen", "--elsewhere"], ["fmt", "--check"]):
        argv = ["unshare", "-rn", sys.executable, "-m", "aikit_nix.cli", *args]
        result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0 or args[0] == "fmt", (args, result.stderr)
    assert (tmp_path / "aikit.lock").read_bytes() == before
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    assert "the lock has `l` from local.gguf, the aikitfile has not" in refused(tmp_path, "lock", "--check")
    assert "- l: no longer in the aikitfile" in done(tmp_path, "lock")
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), sha256="1" * 64)
    assert "the lock has another sha256" in refused(tmp_path, "lock", "--check")
    said = refused(tmp_path, "gen", "--elsewhere")
    assert "1" * 64 in said
    assert digest(model) in said


def test_offline_pins_what_is_here(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "local.gguf").write_bytes(model)
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"), ("l", "local.gguf"))
    assert "`m` is not pinned yet, which needs the network" in refused(tmp_path, "lock", "--offline")
    assert not (tmp_path / "aikit.lock").exists()


def test_gen_names_all_that_is_not_pinned(tmp_path: Path) -> None:
    write(tmp_path, *((f"m{number}", f"huggingface://ns/repo/m{number}.gguf") for number in range(3)))
    for command in (["gen", "--elsewhere"], ["check"]):
        said = refused(tmp_path, *command)
        assert [f"`m{number}`" in said for number in range(3)] == [True] * 3
        assert said.count("pin all 3 with `aikit-nix lock`") == 1


def test_explain_says_where_it_is_from(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    card = {"license": "mit", "base_model": ["upstream/base"]}
    commit = hub.repository(card=card).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    done(tmp_path, "lock")
    result = run(tmp_path, "explain")
    assert f"origin  ns/repo at {commit}" in result.stdout
    assert "licence mit" in result.stdout
    assert "made of upstream/base" in result.stdout
    assert "gguf    4096 tokens, a chat template" in result.stdout


GOOD = '{"path": "/models/m.gguf", "size": 1, "sha256": "%s"}' % ("1" * 64)
MODEL = '{"name": "m", "source": "m.gguf", "files": [%s]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "models": []}', "is of version 2, from a newer aikit-nix: upgrade this one"),
        ('{"version": 1, "models": [\n<<<<<<< HEAD\n=======\n>>>>>>> other\n]}', "has conflict markers of a merge in it"),
        ('{"version": 1, "models": [', "is no aikit.lock"),
        ("", "is no aikit.lock"),
        ("[]", "is no aikit.lock"),
        ("null", "is no aikit.lock"),
        ("[" * 100_000, "is no aikit.lock"),
        ('{"version": true, "models": []}', "is no aikit.lock"),
        ('{"version": "1", "models": []}', "is no aikit.lock"),
        ('{"version": 1}', "is no aikit.lock (it lacks 'models')"),
        ('{"version": 1, "models": {"a": 1}}', "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % ""), "has no files"),
        ('{"version": 1, "models": [%s]}' % (MODEL % f"{GOOD}, {GOOD}"), "has two files on one path"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("/models/", "/etc/")), "is not below /models"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("/models/", "/models/../")), "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"size": -1')), "is no size in bytes"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"size": 1e99')), "is no size in bytes"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"url": "file:///etc", "size": 1')), "is no URL"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace("1" * 64, "A" * 64)), "is not 64 lower-case hex digits"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"gguf": 7, "size": 1')), "is no aikit.lock"),
        ('{"version": 1, "models": [%s]}' % (MODEL % GOOD.replace('"size": 1', '"gguf": {"pooling": -1}, "size": 1')), "are no numbers"),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_used(tmp_path: Path, model: bytes, text: str, message: str) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "aikit.lock").write_text(text)
    for command in (["lock"], ["lock", "--check"], ["fetch"], ["gen", "--elsewhere"], ["check"], ["explain"]):
        said = refused(tmp_path, *command)
        assert message in said, command
        assert "aikit.lock" in said
        assert len(said.splitlines()) <= 2
    assert (tmp_path / "aikit.lock").read_text() == text


# --- A machine where something is wrong


def test_a_proxy_that_is_down(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("my-model", "huggingface://ns/repo/m.gguf"))
    proxies = {"http_proxy": "http://me:my-Password@127.0.0.1:1", "no_proxy": "", "NO_PROXY": ""}
    said = refused(tmp_path, "lock", env=proxies)
    assert "through the proxy http://***@127.0.0.1:1" in said
    assert "my-model" in said
    assert "my-Password" not in said


def test_a_web_server_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, ("m", "http://127.0.0.1:1/m.gguf"), ("n", "http://nowhere.invalid/n.gguf"))
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:3:" in said
    assert "aikitfile.yaml:4:" in said


def test_without_nix(tmp_path: Path, hub: HuggingFace, model: bytes) -> None:
    """What needs no store works, the rest says what is missing."""
    hub.repository().commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    env = {"PATH": str(tmp_path)}
    done(tmp_path, "lock", env=env)
    done(tmp_path, "gen", "--elsewhere", env=env)
    assert "`nix-store` cannot be run: it is not on PATH (apt-get install nix-bin" in refused(
        tmp_path, "fetch", env=env
    )


def test_a_store_that_is_not_there(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    said = refused(tmp_path, "lock", env={"NIX_REMOTE": "unix:///nonexistent/socket"})
    assert "nix" in said
    assert not (tmp_path / "aikit.lock").exists()
    # What was downloaded is kept for the next time
    done(tmp_path, "lock")
    assert in_store("m.gguf", model)


def test_a_full_disk(tmp_path: Path, files: FileServer, model: bytes) -> None:
    files.files["/m.gguf"] = model
    write(tmp_path, ("m", f"{files.url}/m.gguf"))
    cache = tmp_path / "cache"
    cache.mkdir()
    script = f'mount -t tmpfs -o size=100k none "{cache}" && exec "{sys.executable}" -m aikit_nix.cli lock'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "free, and 260.4 kB are to come: make room" in result.stderr
    assert not (tmp_path / "aikit.lock").exists()


def test_a_lock_that_cannot_be_written(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "aikit.lock").mkdir()
    assert "it is a folder" in refused(tmp_path, "lock")
    (tmp_path / "aikit.lock").rmdir()
    (tmp_path / "aikit.lock").symlink_to("/proc/none")
    assert "aikit.lock" in refused(tmp_path, "lock")


def test_every_local_model_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, ("a", "a.gguf"), ("b", "b.gguf"))
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:3:" in said
    assert "aikitfile.yaml:4:" in said
