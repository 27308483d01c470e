"""Hugging Face: how its files are written, what it says of them, and `lock` and `fetch` with a stand-in for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from aikit_nix import sources
from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.sources import HubFile, HubRepository, RefusedError, huggingface
from support import flakes, tiny_gguf
from support.file_server import FileServer
from support.hugging_face import SIGNATURE, TOKEN, HuggingFace
from support.locks import digest, done, in_store, locked, only_file, refused, run, write

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
    assert only_file(tmp_path)["gguf"] == tiny_gguf.FACTS
    assert any(request.headers.get("authorization") == f"Bearer {TOKEN}" for request in hub.requests)
    assert not [request for request in hub.cdn_requests if "authorization" in request.headers]
    assert TOKEN not in said
    assert SIGNATURE not in said
    home_files = {home / "token"}
    for file in tmp_path.rglob("*"):
        if file.is_file() and file not in home_files:
            assert TOKEN.encode() not in file.read_bytes(), file
            assert SIGNATURE.encode() not in file.read_bytes(), file


def test_a_token_that_cannot_be_read(tmp_path: Path, hub: HuggingFace) -> None:
    write(tmp_path, ("m", "huggingface://ns/repo/m.gguf"))
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    for place in (tmp_path / "token", tmp_path):
        said = refused(tmp_path, "lock", env={"HF_TOKEN_PATH": str(place)})
        assert "the token for Hugging Face cannot be read" in said


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
        assert "aikit.lock is no aikit.lock" in result.stderr
        (tmp_path / "aikit.lock").write_text(text)
    assert not files.requests
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


def test_nix_build_of_a_gated_model_says_what_brings_it(
    tmp_path: Path,
    hub: HuggingFace,
    model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flakes.environment(tmp_path_factory.mktemp("lock"), monkeypatch)
    hub.repository("ns/gated", gated=True).commit({"m.gguf": model})
    write(tmp_path, ("m", "huggingface://ns/gated/m.gguf"))
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--packages", "debian")
    plan = json.loads((tmp_path / "flake/aikit/plan.json").read_text())
    assert plan["models"][0]["url"] is None
    build = ["nix", "build", f"path:{tmp_path}/flake#models", "--no-link"]
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


# --- How it is written


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        ("huggingface://ns/repo/m.gguf", "ns/repo", "main", "m.gguf"),
        ("hf://ns/repo/v1/m.gguf", "ns/repo", "v1", "m.gguf"),
        ("huggingface://ns/repo:v1", "ns/repo", "v1", None),
        ("huggingface://ns/repo/", "ns/repo", "main", None),
        ("https://hf.co/ns/repo", "ns/repo", "main", None),
        ("https://HuggingFace.co/ns/repo/tree/v1/", "ns/repo", "v1", None),
        ("https://huggingface.co/ns/repo/resolve/refs%2Fpr%2F1/d/m%20x.gguf", "ns/repo", "refs/pr/1", "d/m x.gguf"),
    ],
)
def test_repository_revision_and_file_are_read(text: str, repo: str, revision: str, path: str | None) -> None:
    source = sources.read(text)
    assert isinstance(source, HubFile | HubRepository)
    assert (source.repo, source.revision) == (repo, revision)
    assert getattr(source, "path", None) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("huggingface://ns", "names no repository"),
        ("huggingface://ns//m.gguf", "names no repository"),
        ("huggingface://ns/$(id)/m.gguf", "names no repository"),
        ("huggingface://../repo/m.gguf", "is no huggingface:// address"),
        ("huggingface://ns/repo/../m.gguf", "is no huggingface:// address"),
        ("huggingface://ns/repo/m%2fx.gguf", "is no huggingface:// address"),
        ("huggingface://ns/repo@v1/m.gguf", "no AIKit understood"),
        ("huggingface://ns/repo/main/d/m.gguf", "has more than NAMESPACE/REPO/BRANCH/FILE"),
        ("https://me:secret@huggingface.co/ns/repo/resolve/main/m.gguf", "user name or password"),
        ("https://huggingface.co/ns/repo/resolve/main/%0am.gguf", r"U\+000A"),
    ],
)
def test_what_names_no_file_of_hugging_face_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        sources.read(text)


# --- What is said of it

FILE = {"rfilename": "m.gguf", "size": 1, "lfs": {"sha256": "1" * 64}}
SAID = {"id": "ns/repo", "sha": "2" * 40, "siblings": [FILE]}


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        SAID | {"sha": "main"},
        SAID | {"siblings": None},
        SAID | {"siblings": ["m.gguf"]},
        SAID | {"siblings": [FILE | {"size": -1}]},
        SAID | {"siblings": [FILE | {"size": True}]},
        SAID | {"siblings": [FILE | {"size": 1 << 60}]},
        SAID | {"siblings": [FILE | {"lfs": {"sha256": "../x"}}]},
        SAID | {"cardData": "x"},
    ],
)
def test_a_description_that_is_none_is_an_error(
    files: FileServer, monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", files.url + "/")
    files.files["/api/models/ns/repo/revision/main"] = json.dumps(said).encode()
    with Client() as client, pytest.raises(AikitError, match=f"is {files.url} Hugging Face"):
        huggingface.describe("ns/repo", "main", client)


def test_of_a_card_only_what_a_lock_can_hold_is_kept(hub: HuggingFace) -> None:
    """JSON can say half of a character, which no file can."""
    hub.repository(card={"license": "\ud800", "base_model": ["up/base", 7, "\x1b[2J", ""]}).commit({"m.gguf": b"x"})
    with Client() as client:
        found = huggingface.describe("ns/repo", "main", client)
    assert (found.license, found.base_models) == (None, ("up/base",))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_ENDPOINT"])
def test_settings_of_no_use_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "file:///etc"}[name])
    with Client() as client, pytest.raises(AikitError, match=name):
        huggingface.describe("ns/repo", "main", client)


def test_a_password_of_the_endpoint_is_not_shown(files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files.files["/api/models/ns/repo/revision/main"] = b"[]"
    for scheme in ("htp://", "http://"):
        monkeypatch.setenv("HF_ENDPOINT", files.url.replace("http://", f"{scheme}me:s3cret-word@"))
        with Client() as client, pytest.raises(AikitError, match="127") as refused:
            huggingface.describe("ns/repo", "main", client)
        assert "s3cret-word" not in str(refused.value)
