"""Moves the pins to another LocalAI: `update_pins.py [TAG] --nixpkgs DIR`. Without a TAG, to the newest release.

That is nix/pins.json, the keys of a model's config (localai_keys.json) and the release that docs/localai.md names.

A hash of sources is computed from the repositories themselves, as `fetchFromGitHub` sees them (`git archive`); git's
`url.<clone>.insteadOf` makes that work without a network. The two hashes of what LocalAI downloads to be built (Go
modules, npm packages) come from Nix: it builds with a wrong hash and says the right one. Nothing is written before all
is known.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import localai_keys
from aikit_nix.base import process
from aikit_nix.base.errors import AikitError, error

ROOT = Path(__file__).resolve().parents[1]
# The parts of pins.json, and where each comes from.
REPOSITORIES = {
    "localai": "https://github.com/mudler/LocalAI",
    "llama-cpp": "https://github.com/ggml-org/llama.cpp",
    "stablediffusion": "https://github.com/leejet/stable-diffusion.cpp",
    "stablediffusion-ggml": "https://github.com/leejet/ggml",
}

# nixpkgs' lib.fakeHash.
_WRONG = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
# Where LocalAI names the commits that it is built from: the Makefile, its variable.
_LLAMA = (Path("backend/cpp/llama-cpp/Makefile"), "LLAMA_VERSION")
_STABLEDIFFUSION = (Path("backend/go/stablediffusion-ggml/Makefile"), "STABLEDIFFUSION_GGML_VERSION")
# What the derivations in nix/engines/localai/ leave out of a source.
_LEFT_OUT = {"llama-cpp": "models", "stablediffusion": "assets"}
# What names the tag that is pinned.
_DOCS = ("docs/localai.md",)

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
    tag: str | None,
    nixpkgs: Path,
    *,
    root: Path = ROOT,
    repositories: Mapping[str, str] = REPOSITORIES,
    llama_rev: str | None = None,
) -> tuple[Change, ...]:
    """Write the pins of a LocalAI tag (None: the newest release) into `root`; returns what changed.

    `llama_rev` is a llama.cpp commit in place of the one that LocalAI names,
    `nixpkgs` a checkout: building with it needs its binary cache, or patience. Raises AikitError; nothing is then changed.
    """
    pins = root / "nix/pins.json"
    before = json.loads(pins.read_text())
    after = json.loads(pins.read_text())
    tag = tag or newest(repositories["localai"])
    with _checkout(repositories["localai"], tag) as (source, git):
        date = process.run([*git, "log", "-1", "--format=%cs", "FETCH_HEAD"]).strip()
        revs = {
            "llama-cpp": llama_rev or _named(source, tag, *_LLAMA),
            "stablediffusion": _named(source, tag, *_STABLEDIFFUSION),
        }
        try:
            keys = localai_keys.table(source)
        except ValueError as problem:
            raise error(f"LocalAI {tag} {problem}: its layout changed", code="pins") from None
        after["localai"] = {"tag": tag, "date": date, "hash": _add_to_store(source)}
    for part in ("llama-cpp", "stablediffusion", "stablediffusion-ggml"):
        with _checkout(repositories[part], revs[part]) as (source, git):
            if part == "stablediffusion":
                revs["stablediffusion-ggml"] = process.run([*git, "rev-parse", "FETCH_HEAD:ggml"]).strip()
            if part in _LEFT_OUT:
                shutil.rmtree(source / _LEFT_OUT[part], ignore_errors=True)
            after[part] = {"rev": revs[part], "hash": _add_to_store(source)}
    for download in ("vendorHash", "npmDepsHash"):
        after["localai"][download] = _download_hash(root / "nix", after, download, nixpkgs)

    texts = {root / page: (root / page).read_text() for page in _DOCS}
    old = before["localai"]
    for file, text in texts.items():
        texts[file] = text.replace(old["tag"], tag).replace(f"({old['date']})", f"({date})")
    texts[root / localai_keys.FILE] = keys
    for file, text in {**texts, pins: json.dumps(after, indent=2) + "\n"}.items():
        new = file.with_name(f"{file.name}.new")
        new.write_text(text)
        new.replace(file)
    return tuple(
        Change(f"{part}.{key}", before[part].get(key, ""), value)
        for part, values in after.items()
        for key, value in values.items()
        if before[part].get(key) != value
    )


def newest(repository: str) -> str:
    """The highest release tag (`v4.9.0`) of a git repository."""
    listed = process.run(["git", "ls-remote", "--tags", "--refs", repository])
    versions = re.findall(r"\trefs/tags/v(\d+)\.(\d+)\.(\d+)$", listed, re.MULTILINE)
    if not versions:
        raise error(f"{repository} has no tag like v4.9.0: name one", code="pins")
    return "v" + ".".join(map(str, max(tuple(map(int, version)) for version in versions)))


@contextmanager
def _checkout(repository: str, ref: str) -> Iterator[tuple[Path, list[str]]]:
    """A folder named `source` with what GitHub's archive of a tag or commit holds, and a git that has it as FETCH_HEAD."""
    with tempfile.TemporaryDirectory() as scratch:
        git = ["git", "-C", f"{scratch}/git"]
        process.run(["git", "init", "--quiet", "--bare", f"{scratch}/git"])
        process.run([*git, "fetch", "--quiet", "--depth=1", "--", repository, ref])
        source = Path(scratch, "source")
        source.mkdir()
        process.run([*git, "archive", "--output=../source.tar", "FETCH_HEAD"])
        process.run(["tar", "-xf", Path(scratch, "source.tar"), "-C", source])
        yield source, git


def _named(source: Path, tag: str, file: Path, variable: str) -> str:
    makefile = source / file
    text = makefile.read_text() if makefile.is_file() else ""
    if found := re.search(rf"^{variable}\?=([0-9a-f]{{40}})$", text, re.MULTILINE):
        return found[1]
    raise error(f"LocalAI {tag} has no {variable} in {file}: its layout changed", code="pins")


def _add_to_store(source: Path) -> str:
    """The hash of a source tree, which the store then has: no later build downloads it again."""
    process.run(["nix-store", "--add-fixed", "--recursive", "sha256", source])
    digest = bytes.fromhex(process.run(["nix-hash", "--type", "sha256", source]))
    return "sha256-" + base64.b64encode(digest).decode()


def _download_hash(nix: Path, pins: dict[str, dict[str, str]], download: str, nixpkgs: Path) -> str:
    """What Nix says that a download of the server's is, when the pins claim something else."""
    wrong = {**pins, "localai": {**pins["localai"], "vendorHash": _WRONG, "npmDepsHash": _WRONG}}
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch, "nix")
        shutil.copytree(nix, library)
        (library / "pins.json").write_text(json.dumps(wrong))
        argv = ["nix-build", "--no-out-link", "--expr", _DOWNLOAD, "--argstr", "download", download]
        argv += ["--argstr", "nixpkgs", str(nixpkgs.resolve()), "--argstr", "nix", str(library)]
        said = process.stderr(argv)
    if found := re.search(r"^\s*got:\s+(sha256-\S{44})$", said, re.MULTILINE):
        return found[1]
    tail = " | ".join(said.strip().splitlines()[-8:])
    raise error(f"Nix did not say the {download} of LocalAI {pins['localai']['tag']}: {tail}", code="pins")


def main() -> None:
    parser = argparse.ArgumentParser(description="Move nix/pins.json to another LocalAI.")
    parser.add_argument("tag", nargs="?", help="a release such as v4.9.0; the newest unless told otherwise")
    parser.add_argument(
        "--nixpkgs",
        type=Path,
        default=os.environ.get("NIXPKGS"),
        required="NIXPKGS" not in os.environ,
        help="a nixpkgs checkout to build with; NIXPKGS unless told otherwise",
    )
    parser.add_argument("--llama-cpp", metavar="COMMIT", help="llama.cpp's commit, in place of LocalAI's own choice")
    given = parser.parse_args()
    try:
        changes = update(given.tag, given.nixpkgs, llama_rev=given.llama_cpp)
    except AikitError as failed:
        sys.exit(f"error: {failed}")
    for change in changes:
        print(f"{change.name}: {change.before} -> {change.after}")
    print(
        "next: build it, run the tests with LOCALAI_SRC, read docs/localai.md and SECURITY.md again"
        if changes
        else "nothing changed"
    )


if __name__ == "__main__":
    main()
