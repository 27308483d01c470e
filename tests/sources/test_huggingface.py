"""Hugging Face: how its files are written, and what it says of them."""

from __future__ import annotations

import json

import pytest

from aikit_nix import sources
from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.sources import HubFile, HubRepository, RefusedError, huggingface
from support.file_server import FileServer
from support.hugging_face import HuggingFace

pytestmark = pytest.mark.usefixtures("hub")

# --- How it is written


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        ("huggingface://ns/repo/m.gguf", "ns/repo", "main", "m.gguf"),
        ("hf://ns/repo/v1/m.gguf", "ns/repo", "v1", "m.gguf"),
        ("huggingface://ns/repo:v1", "ns/repo", "v1", None),
        ("huggingface://ns/repo/", "ns/repo", "main", None),
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
