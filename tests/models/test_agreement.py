"""A lock whose origin, addresses and source do not belong together is refused by everything that reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.models import lock
from support import recipes
from support.command import aikit_nix
from support.locks import done, refused, write

COMMIT, SHA = "1" * 40, "2" * 64
HUB = "huggingface"


def entry(source: str, origin: Mapping[str, Any], *files: tuple[str, str | None], **more: Any) -> dict[str, Any]:
    return {
        "name": "m",
        "source": source,
        "origin": origin,
        "files": [
            {"path": path, "size": 1, "sha256": SHA} | ({"url": url} if url else {}) | more for path, url in files
        ],
    }


def parse(value: Mapping[str, Any]) -> lock.Lock:
    return lock.parse(json.dumps({"version": 1, "models": [value]}).encode(), "aikit.lock")


def hub(path: str, revision: str = COMMIT, repo: str = "ns/repo") -> str:
    return f"https://huggingface.co/{repo}/resolve/{revision}/{path}"


ORIGIN = {"kind": HUB, "repository": "ns/repo", "revision": COMMIT}
OCI = {"kind": "oci", "repository": "localhost:5000/me/m", "revision": f"sha256:{SHA}"}
BLOB = f"http://localhost:5000/v2/me/m/blobs/sha256:{SHA}"
SHARDS = [f"x-{number:05}-of-00002.gguf" for number in (1, 2)]

AGREE = {
    "file": entry("huggingface://ns/repo/m.gguf", ORIGIN, ("/models/m.gguf", hub("m.gguf"))),
    "branch": entry("huggingface://ns/repo/v2/m.gguf", ORIGIN, ("/models/m.gguf", hub("m.gguf"))),
    "page": entry(
        "https://hf.co/ns/repo/blob/main/d/m x.gguf".replace(" ", "%20"),
        ORIGIN,
        ("/models/m x.gguf", hub("d/m%20x.gguf")),
    ),
    "repository": entry("huggingface://ns/repo", ORIGIN, ("/models/ns/repo/d/m.gguf", hub("d/m.gguf"))),
    "shards": entry(
        f"https://huggingface.co/ns/repo/resolve/main/d/{SHARDS[0]}",
        ORIGIN,
        *((f"/models/{name}", hub(f"d/{name}")) for name in SHARDS),
    ),
    "web": entry("http://host/d/m.gguf?x=1", {"kind": "http"}, ("/models/m.gguf", "http://host/d/m.gguf?x=1")),
    "web shards": entry(
        f"http://host/d/{SHARDS[0]}?x=1",
        {"kind": "http"},
        *((f"/models/{name}", f"http://host/d/{name}?x=1") for name in SHARDS),
    ),
    "local": entry("d/m.gguf", {"kind": "local"}, ("/models/m.gguf", None)),
    "local folder": entry("d", {"kind": "local"}, ("/models/d/x/y.gguf", None)),
    "artifact": entry("oci://localhost:5000/me/m:1", OCI, ("/models/any.gguf", BLOB)),
    "archive": entry(
        "oci://localhost:5000/me/m:1", OCI, ("/models/any.gguf", BLOB.replace(SHA, "3" * 64)), member="any.gguf"
    ),
    "ollama": entry(
        "oci://registry.ollama.ai/library/llama:1",
        OCI | {"repository": "registry.ollama.ai/library/llama"},
        ("/models/llama", f"https://registry.ollama.ai/v2/library/llama/blobs/sha256:{SHA}"),
    ),
}


@pytest.mark.parametrize("what", AGREE)
def test_what_agrees_is_read(what: str) -> None:
    assert len(parse(AGREE[what]).entries) == 1


def file(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["files"][0].update(changes)


def origin(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["origin"].update(changes)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("file", file(url="https://evil.example/m.gguf")),
        ("file", file(url=hub("m.gguf", repo="meta-llama/Llama-3"))),
        ("file", file(url=hub("m.gguf", "3" * 40))),
        ("file", file(url=hub("other.gguf"))),
        ("file", file(url=hub("m.gguf") + "?x")),
        ("file", file(url=hub("m.gguf").replace("https", "http"))),
        ("file", file(url=None)),
        ("file", file(path="/models/other.gguf")),
        ("file", origin(repository="meta-llama/Llama-3")),
        ("file", origin(revision="3" * 40)),
        ("file", origin(revision="main")),
        ("file", origin(revision=None)),
        ("file", origin(kind="local")),
        ("file", lambda value: value.update(source="huggingface://evil/repo/m.gguf")),
        ("file", lambda value: value.update(source=f"huggingface://ns/repo/{'3' * 40}/m.gguf")),
        ("file", lambda value: value.update(source="ftp://ns/repo")),
        ("page", file(url=hub("m%20x.gguf"))),
        ("repository", file(path="/models/other/repo/m.gguf")),
        ("repository", file(url=hub("m.gguf"))),
        ("shards", file(path=f"/models/d/{SHARDS[0]}")),
        ("shards", file(url=hub(SHARDS[0]))),
        ("web", origin(repository="meta-llama/Llama-3")),
        ("web", origin(kind=HUB, repository="meta-llama/Llama-3", revision=COMMIT)),
        ("web", origin(license="mit")),
        ("web", origin(baseModels=["meta-llama/Llama-3"])),
        ("web", file(url="http://evil.example/d/m.gguf?x=1")),
        ("web shards", file(url=f"http://evil.example/{SHARDS[0]}")),
        ("local", file(url="http://host/m.gguf")),
        ("local", origin(kind=HUB, repository="meta-llama/Llama-3", revision=COMMIT)),
        ("local folder", file(path="/models/other/y.gguf")),
        ("artifact", file(url=BLOB.replace(SHA, "3" * 64))),
        ("artifact", file(url=BLOB.replace("localhost:5000", "localhost:5001"))),
        ("artifact", file(url=BLOB.replace("me/m", "me/other"))),
        ("artifact", origin(repository="ghcr.io/me/m")),
        ("artifact", origin(revision="1")),
        ("ollama", lambda value: value["files"][0].update(url=value["files"][0]["url"].replace("https", "http"))),
        ("artifact", lambda value: value.update(source=f"oci://localhost:5000/me/m@sha256:{'3' * 64}")),
        ("archive", file(url=BLOB.replace("blobs", "manifests"))),
        ("archive", file(url="https://evil.example/x")),
        ("ollama", file(path="/models/other")),
    ],
)
def test_what_does_not_agree_is_refused(what: str, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(json.dumps(AGREE[what]))
    change(value)
    with pytest.raises(AikitError, match=r"aikit\.lock is no aikit\.lock .*`m`"):
        parse(value)


@pytest.mark.parametrize(
    "command",
    [["check"], ["lock", "--check"], ["gen", "-o", "flake"], ["sbom", "--flake", "."], ["provenance", "--flake", "."]],
)
def test_nobody_repeats_a_name_that_was_not_checked(command: list[str], tmp_path: Path) -> None:
    """A lock that calls a file of another host by the name of a model that people trust."""
    recipes.write(tmp_path)
    file = tmp_path / "aikit.lock"
    content = json.loads(file.read_text())
    content["models"][0]["files"][0]["url"] = "https://evil.example/llama.gguf"
    file.write_text(json.dumps(content))
    done = aikit_nix(*command, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "aikit.lock is no aikit.lock (`llama` comes from huggingface://TheBloke" in done.stderr
    assert "Llama-2-7b-chat-hf" not in done.stdout


def test_an_entry_of_no_model_says_nothing_of_a_file_of_one(tmp_path: Path, model: bytes) -> None:
    """It agrees with itself, and bills of materials and policies would read its name and licence for another's bytes."""
    (tmp_path / "m.gguf").write_bytes(model)
    write(tmp_path, ("m", "m.gguf"))
    done(tmp_path, "lock")
    text = json.loads((tmp_path / "aikit.lock").read_text())
    (known,) = text["models"]
    (file,) = known["files"]
    forged = known | {"name": "n", "source": "huggingface://ns/repo/m.gguf", "origin": ORIGIN | {"license": "mit"}}
    text["models"].append(forged | {"files": [file | {"url": hub("m.gguf")}]})
    (tmp_path / "aikit.lock").write_text(json.dumps(text))
    for command in (("gen", "--elsewhere"), ("gen", "--check"), ("check",), ("lock", "--check")):
        assert "`n` from huggingface://ns/repo/m.gguf" in refused(tmp_path, *command)
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--elsewhere")


def test_two_entries_of_one_model_are_refused() -> None:
    """One reads the first, the next the last."""
    text = json.dumps({"version": 1, "models": [AGREE["web"], AGREE["web"]]}).encode()
    with pytest.raises(AikitError, match="it has two entries of one model"):
        lock.parse(text, "aikit.lock")


@pytest.mark.parametrize("shard", [0, 1])
def test_a_lock_with_a_part_of_a_model_does_not_cover_it(tmp_path: Path, shard: int) -> None:
    source = f"huggingface://ns/repo/{SHARDS[0]}"
    write(tmp_path, ("m", source))
    files = [(f"/models/{name}", hub(name)) for name in SHARDS]
    for some, text in ((files, "covers"), ([files[shard]], f"and not {SHARDS[1 - shard]} of the same model")):
        content = {"version": 1, "models": [entry(source, ORIGIN, *some)]}
        (tmp_path / "aikit.lock").write_text(json.dumps(content))
        assert text in (done if len(some) > 1 else refused)(tmp_path, "lock", "--check")
