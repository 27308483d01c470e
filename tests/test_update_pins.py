"""Moving the pins to another LocalAI tag, on repositories and a nixpkgs of a few lines; Nix itself is the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import localai_keys
import update_pins
from aikit_nix.base.errors import AikitError
from support.file_server import FileServer

ROOT = Path(__file__).resolve().parents[1]

# A nixpkgs with what LocalAI's server.nix takes from it. Its two downloads are one file each.
NIXPKGS = """
args: let pkgs = rec {{
  config = args.config;
  lib = {{ removePrefix = _: text: text; platforms.linux = [ ]; licenses.mit = {{ }}; }};
  stdenv.hostPlatform.isx86_64 = true;
  fetchFromGitHub = arguments: "/source";
  callPackage = file: arguments: let f = import file; in f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // arguments);
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
}}; in pkgs
"""


DATE = "2026-10-11"
NOTHING: Mapping[str, str] = MappingProxyType({})
LLAMA = "backend/cpp/llama-cpp/Makefile"
PICTURES = "backend/go/stablediffusion-ggml/Makefile"
# What of LocalAI's source says which keys a config has
KEYS = {
    "core/config/model_config.go": """
type ModelConfig struct {
	Threads   *int `yaml:"threads,omitempty" json:"threads"`
	Pipeline  Pipeline `yaml:"pipeline"`
	Spelled   Spelled  `yaml:"spelled"`
	LLMConfig `yaml:",inline"`
}
type Pipeline struct {
	Other string `yaml:"other"`
}
type Spelled struct {
}
func (s *Spelled) UnmarshalYAML(value *yaml.Node) error {
}
type LLMConfig struct {
	Stop []string `yaml:"stopwords"`
}
type TemplateConfig struct {
}
""",
    "core/schema/request.go": 'type BasicModelRequest struct {\n\tModel string `yaml:"model"`\n}\n',
    "core/schema/prediction.go": "type PredictionOptions struct {\n}\n",
    "pkg/functions/parse.go": "type FunctionsConfig struct {\n}\ntype GrammarConfig struct {\n}\n",
    "pkg/reasoning/config.go": "type Config struct {\n}\n",
    "backend/cpp/llama-cpp/grpc-server.cpp": 'if (!strcmp(optname, "parallel") || !strcmp(optname, "cache_ram")) {\n',
}


def commit(
    repository: Path, files: dict[str, str], tag: str | None = None, submodules: Mapping[str, str] = NOTHING
) -> str:
    """Commit files, and submodules' commits, to a repository, made where it is missing; returns the commit's hash."""

    def git(*argv: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        argv = ("git", "-C", str(repository), *identity, *argv)
        dated = {**os.environ, "GIT_COMMITTER_DATE": f"{DATE}T12:00:00Z"}
        return subprocess.run(argv, env=dated, check=True, capture_output=True, text=True).stdout.strip()

    if not repository.exists():
        repository.mkdir()
        git("init", "--quiet")
        git("config", "uploadpack.allowAnySHA1InWant", "true")
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git("add", "--all")
    for path, rev in submodules.items():
        git("update-index", "--add", "--cacheinfo", f"160000,{rev},{path}")
    git("commit", "--quiet", "--message", "change")
    if tag:
        git("tag", tag)
    return git("rev-parse", "HEAD")


@pytest.fixture
def upstream(nix: None, files: FileServer, tmp_path: Path) -> dict[str, str]:
    """What `update` is given for a LocalAI with two releases, its llama.cpp, and a nixpkgs."""
    llama = tmp_path / "llama.cpp"
    old = commit(llama, {"CMakeLists.txt": "old", "models/vocabulary.gguf": "large"})
    new = commit(llama, {"CMakeLists.txt": "new"})
    commit(llama, {"CMakeLists.txt": "newer than LocalAI's"})

    ggml = tmp_path / "ggml"
    tensors = commit(ggml, {"ggml.c": "tensors"})
    commit(ggml, {"ggml.c": "newer than its"})
    pictures = tmp_path / "stable-diffusion.cpp"
    painter = commit(pictures, {"model.cpp": "paint", "assets/cat.png": "large"}, submodules={"ggml": tensors})

    localai = tmp_path / "LocalAI"
    named = {PICTURES: f"STABLEDIFFUSION_GGML_VERSION?={painter}\n", **KEYS}
    commit(localai, {LLAMA: f"\nLLAMA_VERSION?={old}\nJOBS?=1\n", **named}, "v9.9.0")
    commit(localai, {LLAMA: f"\nLLAMA_VERSION?={new}\nJOBS?=1\n", "go.mod": "module x\n"}, "v9.10.0")
    commit(localai, {"go.mod": "module y\n"}, "v10.0.0-rc1")

    nixpkgs = tmp_path / "nixpkgs"
    nixpkgs.mkdir()
    files.files |= {"/modules": b"the Go modules", "/npm": b"the npm packages"}
    (nixpkgs / "default.nix").write_text(NIXPKGS.format(url=files.url))
    repositories = (localai, llama, pictures, ggml)
    urls = {part: f"file://{folder}" for part, folder in zip(update_pins.REPOSITORIES, repositories, strict=True)}
    return {**urls, "nixpkgs": str(nixpkgs), "rev": new, "painter": painter, "tensors": tensors}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the tool changes of this repository, and what it reads."""
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "nix", root / "nix")
    (root / "docs").mkdir()
    shutil.copy(ROOT / "docs/localai.md", root / "docs")
    (root / localai_keys.FILE).parent.mkdir(parents=True)
    shutil.copy(ROOT / localai_keys.FILE, root / localai_keys.FILE)
    return root


def pins(root: Path) -> dict[str, dict[str, str]]:
    read: dict[str, dict[str, str]] = json.loads((root / "nix/pins.json").read_text())
    return read


def update(
    upstream: dict[str, str], copy: Path, tag: str | None, llama_rev: str | None = None
) -> dict[str, dict[str, str]]:
    update_pins.update(
        tag,
        Path(upstream["nixpkgs"]),
        root=copy,
        repositories=upstream,
        llama_rev=llama_rev,
    )
    return pins(copy)


def everything(root: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}


def sri(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def tree_hash(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    argv = ["nix-hash", "--type", "sha256", str(folder)]
    digest = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return "sha256-" + base64.b64encode(bytes.fromhex(digest.strip())).decode()


def test_every_hash_moves_with_the_newest_release(upstream: dict[str, str], copy: Path, tmp_path: Path) -> None:
    before = pins(copy)
    after = update(upstream, copy, None)
    localai = {
        **KEYS,
        LLAMA: f"\nLLAMA_VERSION?={upstream['rev']}\nJOBS?=1\n",
        PICTURES: f"STABLEDIFFUSION_GGML_VERSION?={upstream['painter']}\n",
        "go.mod": "module x\n",
    }
    assert after["localai"] == {
        "tag": "v9.10.0",
        "date": DATE,
        "hash": tree_hash(tmp_path / "a", localai),
        "vendorHash": sri("the Go modules"),
        "npmDepsHash": sri("the npm packages"),
    }
    assert after["llama-cpp"] == {
        "rev": upstream["rev"],
        "hash": tree_hash(tmp_path / "b", {"CMakeLists.txt": "new"}),
    }
    # As GitHub's archives do, an empty folder stands for a submodule.
    (tmp_path / "c/ggml").mkdir(parents=True)
    assert after["stablediffusion"] == {
        "rev": upstream["painter"],
        "hash": tree_hash(tmp_path / "c", {"model.cpp": "paint"}),
    }
    assert after["stablediffusion-ggml"] == {
        "rev": upstream["tensors"],
        "hash": tree_hash(tmp_path / "d", {"ggml.c": "tensors"}),
    }
    page = (copy / "docs/localai.md").read_text()
    assert f"LocalAI v9.10.0 ({DATE})" in page
    assert before["localai"]["tag"] not in page
    types = {
        "parameters.model": "string",
        "pipeline": "struct",
        "spelled": "Spelled",
        "stopwords": "[]string",
        "threads": "int",
    }
    keys = json.loads((copy / localai_keys.FILE).read_text())
    assert keys == {"keys": types, "options": ["cache_ram", "parallel"]}


def test_a_tag_can_be_named_and_another_llama_cpp(upstream: dict[str, str], copy: Path) -> None:
    after = update(upstream, copy, "v9.9.0")
    assert after["localai"]["tag"] == "v9.9.0"
    assert after["llama-cpp"]["rev"] != upstream["rev"]
    assert update(upstream, copy, "v9.9.0") == after
    assert update(upstream, copy, "v9.9.0", upstream["rev"])["llama-cpp"]["rev"] == upstream["rev"]


def test_a_failure_changes_nothing(upstream: dict[str, str], copy: Path, files: FileServer) -> None:
    before = everything(copy)
    with pytest.raises(AikitError, match="`git` failed"):
        update(upstream, copy, "v1.2.3")
    del files.files["/npm"]
    with pytest.raises(AikitError, match=r"did not say the npmDepsHash of LocalAI v9\.10\.0"):
        update(upstream, copy, None)
    assert everything(copy) == before


def test_another_layout_of_localai_is_said(upstream: dict[str, str], copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    commit(other, {"README": ""}, "v11.0.0")
    with pytest.raises(AikitError, match=r"LocalAI v11\.0\.0 has no LLAMA_VERSION in backend/cpp"):
        update({**upstream, "localai": f"file://{other}"}, copy, None)
    commit(
        other,
        {
            LLAMA: f"LLAMA_VERSION?={upstream['rev']}\n",
            PICTURES: f"STABLEDIFFUSION_GGML_VERSION?={upstream['painter']}\n",
            **KEYS,
            "pkg/reasoning/config.go": "type Settings struct {\n}\n",
        },
        "v12.0.0",
    )
    with pytest.raises(AikitError, match=r"LocalAI v12\.0\.0 has no structure Config in pkg/reasoning/config.go"):
        update({**upstream, "localai": f"file://{other}"}, copy, None)


def test_the_program_asks_for_a_nixpkgs() -> None:
    env = {name: value for name, value in os.environ.items() if name != "NIXPKGS"}
    argv = [sys.executable, str(ROOT / "tools/update_pins.py")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--nixpkgs" in done.stderr


def test_the_docs_name_what_is_pinned() -> None:
    pinned = pins(ROOT)["localai"]
    assert f"LocalAI {pinned['tag']} ({pinned['date']})" in (ROOT / "docs/localai.md").read_text()
