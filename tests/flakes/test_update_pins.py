"""Moving the pins to another LocalAI tag, on repositories and a nixpkgs of a few lines; Nix itself is the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base import data
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import update_pins
from support.command import aikit_nix
from support.file_server import FileServer

# A nixpkgs with what LocalAI's server.nix takes from it. Its two downloads are one file each.
NIXPKGS = """
args: rec {{
  config = args.config;
  lib = {{ removePrefix = _: text: text; platforms.linux = [ ]; licenses.mit = {{ }}; }};
  stdenv.hostPlatform.isx86_64 = true;
  fetchFromGitHub = arguments: "/source";
  fetch = name: hash: derivation {{
    inherit name;
    builder = "builtin:fetchurl";
    system = "builtin";
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = hash;
    url = "{url}/" + name;
    unpack = false;
    executable = false;
  }};
  buildGoModule = arguments: {{ goModules = fetch "modules" arguments.vendorHash; }} // arguments.passthru;
  buildNpmPackage = arguments: {{ npmDeps = fetch "npm" arguments.npmDepsHash; outPath = "/ui"; }};
  protobuf = "";
  protoc-gen-go = "";
  protoc-gen-go-grpc = "";
}}
"""


def commit(repository: Path, files: dict[str, str], tag: str | None = None) -> str:
    """Commit files to a repository, made where it is missing; returns the commit's hash."""

    def git(*argv: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        argv = ("git", "-C", str(repository), *identity, *argv)
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    if not repository.exists():
        repository.mkdir()
        git("init", "--quiet")
        git("config", "uploadpack.allowAnySHA1InWant", "true")
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git("add", "--all")
    git("commit", "--quiet", "--message", "change")
    if tag:
        git("tag", tag)
    return git("rev-parse", "HEAD")


@pytest.fixture
def upstream(nix: None, files: FileServer, tmp_path: Path) -> dict[str, str]:
    """`update-pins` options for a LocalAI with two releases, its llama.cpp, and a nixpkgs."""
    llama = tmp_path / "llama.cpp"
    old = commit(llama, {"CMakeLists.txt": "old", "models/vocabulary.gguf": "large"})
    new = commit(llama, {"CMakeLists.txt": "new"})
    commit(llama, {"CMakeLists.txt": "newer than LocalAI's"})

    localai = tmp_path / "LocalAI"
    makefile = "backend/cpp/llama-cpp/Makefile"
    commit(localai, {makefile: f"\nLLAMA_VERSION?={old}\nJOBS?=1\n"}, "v9.9.0")
    commit(localai, {makefile: f"\nLLAMA_VERSION?={new}\nJOBS?=1\n", "go.mod": "module x\n"}, "v9.10.0")
    commit(localai, {"go.mod": "module y\n"}, "v10.0.0-rc1")

    nixpkgs = tmp_path / "nixpkgs"
    nixpkgs.mkdir()
    files.files |= {"/modules": b"the Go modules", "/npm": b"the npm packages"}
    (nixpkgs / "default.nix").write_text(NIXPKGS.format(url=files.url))
    return {"localai": f"file://{localai}", "llama_cpp": f"file://{llama}", "nixpkgs": str(nixpkgs), "rev": new}


@pytest.fixture
def pins_file(tmp_path: Path) -> Path:
    return Path(shutil.copy(data.NIX / "pins.json", tmp_path / "pins.json"))


def update(upstream: dict[str, str], pins_file: Path, tag: str | None) -> dict[str, dict[str, str]]:
    update_pins.update(
        tag,
        Path(upstream["nixpkgs"]),
        pins=pins_file,
        localai=upstream["localai"],
        llama_cpp=upstream["llama_cpp"],
    )
    written: dict[str, dict[str, str]] = json.loads(pins_file.read_text())
    return written


def sri(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def tree_hash(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    argv = ["nix-hash", "--type", "sha256", str(folder)]
    digest = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return "sha256-" + base64.b64encode(bytes.fromhex(digest.strip())).decode()


def test_every_hash_moves_with_the_newest_release(upstream: dict[str, str], pins_file: Path, tmp_path: Path) -> None:
    before = json.loads(pins_file.read_text())
    after = update(upstream, pins_file, None)
    makefile = f"\nLLAMA_VERSION?={upstream['rev']}\nJOBS?=1\n"
    localai = {"backend/cpp/llama-cpp/Makefile": makefile, "go.mod": "module x\n"}
    assert after["localai"] == {
        "tag": "v9.10.0",
        "hash": tree_hash(tmp_path / "a", localai),
        "vendorHash": sri("the Go modules"),
        "npmDepsHash": sri("the npm packages"),
    }
    assert after["llama-cpp"] == {
        "rev": upstream["rev"],
        "hash": tree_hash(tmp_path / "b", {"CMakeLists.txt": "new"}),
    }
    assert after["stablediffusion"] == before["stablediffusion"]


def test_a_tag_can_be_named(upstream: dict[str, str], pins_file: Path) -> None:
    after = update(upstream, pins_file, "v9.9.0")
    assert after["localai"]["tag"] == "v9.9.0"
    assert after["llama-cpp"]["rev"] != upstream["rev"]
    assert update(upstream, pins_file, "v9.9.0") == after


def test_a_failure_leaves_the_pins_as_they_were(upstream: dict[str, str], pins_file: Path, files: FileServer) -> None:
    before = pins_file.read_text()
    with pytest.raises(AikitError, match="`git` failed"):
        update(upstream, pins_file, "v1.2.3")
    del files.files["/npm"]
    with pytest.raises(AikitError, match=r"did not say the npmDepsHash of LocalAI v9\.10\.0"):
        update(upstream, pins_file, None)
    assert pins_file.read_text() == before
    assert [file.name for file in pins_file.parent.glob("pins*")] == ["pins.json"]


def test_another_layout_of_localai_is_said(upstream: dict[str, str], pins_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    commit(other, {"README": ""}, "v11.0.0")
    with pytest.raises(AikitError, match=r"LocalAI v11\.0\.0 has no LLAMA_VERSION in backend/cpp"):
        update({**upstream, "localai": f"file://{other}"}, pins_file, None)


def test_the_command_asks_for_a_nixpkgs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NIXPKGS", raising=False)
    done = aikit_nix("update-pins", cwd=tmp_path)
    assert done.returncode == 2
    assert "--nixpkgs" in done.stderr
