"""Maintenance: moves nix/pins.json to another LocalAI tag.

A hash of sources is computed from the repositories themselves, as `fetchFromGitHub` sees them (`git archive`). The two
hashes of what LocalAI downloads to be built (Go modules, npm packages) come from Nix: it builds with a wrong hash and
says the right one.

The pin of stablediffusion stays: its sources are not LocalAI's current ones, and its build says when they no longer
fit.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aikit_nix.base import data, process
from aikit_nix.base.errors import error

PINS = data.NIX / "pins.json"
LOCALAI = "https://github.com/mudler/LocalAI"
LLAMA_CPP = "https://github.com/ggml-org/llama.cpp"

# nixpkgs' lib.fakeHash.
_WRONG = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
_LLAMA_MAKEFILE = Path("backend/cpp/llama-cpp/Makefile")

# Any plan: the downloads do not depend on it.
_DOWNLOAD = """
  { nixpkgs, nix, download }:
  let
    inherit
      (import (/. + nix + "/packages/nixpkgs.nix") {
        nixpkgs = /. + nixpkgs;
        plan = { engine = "localai"; backends = [ ]; files = [ ]; cudaCapabilities = [ ]; };
      } builtins.currentSystem "avx")
      engine
      ;
    inherit (engine.parts) server;
  in
  { vendorHash = server.goModules; npmDepsHash = server.webInterface.npmDeps; }.${download}
"""


@dataclass(frozen=True)
class Change:
    """One value of pins.json that moved; `name` is its path there, `localai.tag`."""

    name: str
    before: str
    after: str


def update(
    tag: str | None, nixpkgs: Path, *, pins: Path = PINS, localai: str = LOCALAI, llama_cpp: str = LLAMA_CPP
) -> tuple[Change, ...]:
    """Write the pins of a LocalAI tag (None: the newest release) into `pins`; returns what changed.

    `localai` and `llama_cpp` are URLs of git repositories, `nixpkgs` is a checkout: building with it needs its binary
    cache, or patience. Raises AikitError; `pins` is then as it was.
    """
    before = json.loads(pins.read_text())
    after = json.loads(pins.read_text())
    tag = tag or newest(localai)
    with _checkout(localai, tag) as source:
        rev = _llama_version(source, tag)
        after["localai"] = {"tag": tag, "hash": _add_to_store(source)}
    with _checkout(llama_cpp, rev) as source:
        # As nix/engines/localai/llama-cpp.nix does.
        shutil.rmtree(source / "models", ignore_errors=True)
        after["llama-cpp"] = {"rev": rev, "hash": _add_to_store(source)}
    for download in ("vendorHash", "npmDepsHash"):
        after["localai"][download] = _download_hash(after, download, nixpkgs)

    new = pins.with_suffix(".new")
    new.write_text(json.dumps(after, indent=2) + "\n")
    new.replace(pins)
    return tuple(
        Change(f"{part}.{key}", before[part][key], value)
        for part, values in after.items()
        for key, value in values.items()
        if before[part][key] != value
    )


def newest(repository: str) -> str:
    """The highest release tag (`v4.6.2`) of a git repository."""
    listed = process.run(["git", "ls-remote", "--tags", "--refs", repository])
    versions = re.findall(r"\trefs/tags/v(\d+)\.(\d+)\.(\d+)$", listed, re.MULTILINE)
    if not versions:
        raise error(f"{repository} has no tag like v4.6.2: name one", code="pins")
    return "v" + ".".join(map(str, max(tuple(map(int, version)) for version in versions)))


@contextmanager
def _checkout(repository: str, ref: str) -> Iterator[Path]:
    """A folder named `source` with what GitHub's archive of a tag or commit holds."""
    with tempfile.TemporaryDirectory() as scratch:
        git = ["git", "-C", scratch]
        process.run([*git, "init", "--quiet", "--bare", "git"])
        process.run([*git, "-C", "git", "fetch", "--quiet", "--depth=1", "--", repository, ref])
        source = Path(scratch, "source")
        source.mkdir()
        process.run([*git, "-C", "git", "archive", "--output=../source.tar", "FETCH_HEAD"])
        process.run(["tar", "-xf", Path(scratch, "source.tar"), "-C", source])
        yield source


def _llama_version(source: Path, tag: str) -> str:
    makefile = source / _LLAMA_MAKEFILE
    text = makefile.read_text() if makefile.is_file() else ""
    if found := re.search(r"^LLAMA_VERSION\?=([0-9a-f]{40})$", text, re.MULTILINE):
        return found[1]
    raise error(f"LocalAI {tag} has no LLAMA_VERSION in {_LLAMA_MAKEFILE}: its layout changed", code="pins")


def _add_to_store(source: Path) -> str:
    """The hash of a source tree, which the store then has: no later build downloads it again."""
    process.run(["nix-store", "--add-fixed", "--recursive", "sha256", source])
    digest = bytes.fromhex(process.run(["nix-hash", "--type", "sha256", source]))
    return "sha256-" + base64.b64encode(digest).decode()


def _download_hash(pins: dict[str, dict[str, str]], download: str, nixpkgs: Path) -> str:
    """What Nix says that a download of the server's is, when the pins claim something else."""
    wrong = {**pins, "localai": {**pins["localai"], "vendorHash": _WRONG, "npmDepsHash": _WRONG}}
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch, "nix")
        shutil.copytree(data.NIX, library)
        (library / "pins.json").write_text(json.dumps(wrong))
        argv = ["nix-build", "--no-out-link", "--expr", _DOWNLOAD, "--argstr", "download", download]
        argv += ["--argstr", "nixpkgs", str(nixpkgs.resolve()), "--argstr", "nix", str(library)]
        said = process.stderr(argv)
    if found := re.search(r"^\s*got:\s+(sha256-\S{44})$", said, re.MULTILINE):
        return found[1]
    tail = " | ".join(said.strip().splitlines()[-8:])
    raise error(f"Nix did not say the {download} of LocalAI {pins['localai']['tag']}: {tail}", code="pins")
