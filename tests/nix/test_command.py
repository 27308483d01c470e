"""What is said to Nix, and what Nix says, in all its versions."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.nix import command as nix
from aikit_nix.nix import store


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `nix` that says what is written into it; the only one on PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    return tmp_path / "bin/nix"


def says(program: Path, text: str) -> None:
    (program.parent / "said").write_text(text)
    program.write_text(f"#!/bin/sh\nexec /bin/cat '{program.parent / 'said'}'\n")
    program.chmod(0o755)


@pytest.fixture
def settings() -> Iterator[None]:
    """For tests that change Nix's settings, which are asked for once."""
    nix._settings.cache_clear()
    yield
    nix._settings.cache_clear()


# --- Versions


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ("nix (Nix) 2.3.7", False),
        ("nix (Nix) 2.17.9", False),
        ("nix (Nix) 2.18.0", True),
        ("nix (Nix) 2.100pre20260101_abc", True),
        ("nix (Nix) 3.0", True),
        ("nix (Lix, like Nix) 2.91.1", True),
        ("what?", False),
    ],
)
def test_a_nix_that_is_too_old_is_refused_with_what_to_do(program: Path, said: str, enough: bool) -> None:
    says(program, f"{said}\n")
    if enough:
        nix.require((2, 18))
        return
    with pytest.raises(AikitError, match=re.escape(f"need Nix 2.18 or newer and `nix --version` says '{said}'")):
        nix.require((2, 18))


@pytest.mark.usefixtures("program")
def test_where_there_is_no_nix_it_says_how_to_get_it() -> None:
    with pytest.raises(AikitError, match="nix-bin"):
        nix.require(nix.OLDEST)


# --- Settings


@pytest.mark.usefixtures("nix", "settings")
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("sandbox = false\n", "etc/nix.conf: `sandbox = true`, which line 1 sets to false"),
        ("# x\nexperimental-features = nix-command flakes\nsandbox = false # Debian\n", "which line 3 sets to false"),
        ("build-use-sandbox = false\n", "`sandbox = true`, which line 1 sets to false"),
        ("include other.conf\n", "etc/nix.conf: `sandbox = true` "),
        ("sandbox = true\nsandbox = relaxed\n", ""),
        ("", ""),
    ],
)
def test_builds_outside_of_a_sandbox_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, said: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nix.conf").write_text(lines)
    (tmp_path / "etc/other.conf").write_text("\nsandbox = false\n")
    monkeypatch.setenv("NIX_CONF_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("NIX_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    warned = nix.sandbox_warning()
    assert [said in warning.message for warning in warned] == ([True] if said else [])
    command = nix.build_command(tmp_path)
    assert ("--extra-experimental-features" in command) == ("flakes" not in lines)


# --- The command that builds


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "a:b", "é", "a'b", "$(touch x)", "-a", "a&b=c", "a\\b"])
def test_the_command_that_builds_finds_the_flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(name), tmp_path / "c" / name):
        folder.mkdir(parents=True)
        (folder / "flake.nix").write_text("{ outputs = _: { }; }\n")
        command = nix.build_command(folder).replace("nix build", "nix flake metadata")
        seen = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (seen.returncode, "Resolved URL" in seen.stdout) == (0, True), (command, seen.stderr)
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("nix")
def test_the_command_that_builds_is_short_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nix_build = nix.build_command(Path(), "--offline").removesuffix(" path:.")
    assert nix_build.startswith("nix build --offline")
    assert nix.build_command(Path("flake"), "--offline") == f"{nix_build} path:flake"
    assert nix.build_command(tmp_path / "flake", "--offline") == f"{nix_build} path:{tmp_path}/flake"


# --- What a derivation is made of

STORE = "/nix/store/"
HASH = "0" * 32
FETCHED = {
    "builder": "builtin:fetchurl",
    "env": {"out": f"{STORE}{HASH}-m.gguf"},
    "outputs": {"out": {"path": f"{STORE}{HASH}-m.gguf", "hash": "1"}},
}
LAYER = {
    "builder": f"{STORE}sh",
    "env": {"modelFile": "m.gguf", "out": f"{STORE}{HASH}-layer"},
    "outputs": {"out": {"path": f"{STORE}{HASH}-layer", "hash": "2"}},
}
IMAGE = {"builder": f"{STORE}sh", "env": {}, "outputs": {"out": {"path": f"{STORE}{HASH}-image"}}}
DERIVATIONS = {f"{HASH}-{name}.drv": said for name, said in (("m", FETCHED), ("layer", LAYER), ("image", IMAGE))}


def older() -> str:
    return json.dumps({STORE + path: said for path, said in DERIVATIONS.items()})


def newer() -> str:
    """Newer Nix wraps them, and leaves the store's own path out of everything."""
    return json.dumps({"derivations": json.loads(json.dumps(DERIVATIONS).replace(STORE, ""))})


def newest() -> str:
    """As newer, but for the build's environment; and a path that follows from a hash is left out, too."""
    wrapped = json.loads(newer())
    for name, said in wrapped["derivations"].items():
        said["env"] = DERIVATIONS[name]["env"]
        for output in said["outputs"].values():
            if "hash" in output:
                del output["path"]
    return json.dumps(wrapped)


@pytest.mark.parametrize("form", [older, newer, newest])
def test_what_a_derivation_is_made_of_is_understood_of_old_and_new_nix(program: Path, form: object) -> None:
    assert callable(form)
    says(program, form())
    assert nix.fixed_outputs("x") == {f"{STORE}{HASH}-m.gguf": f"{STORE}{HASH}-m.drv"}
    assert nix.model_layers("x") == {f"{STORE}{HASH}-layer"}
    assert nix.built_here("x") == [f"{STORE}{HASH}-image.drv"]


def test_a_newer_nix_s_own_words_are_understood(
    tmp_path: Path, newer_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it.nix").write_text("""
      let
        file = derivation {
          name = "file"; builder = "builtin:fetchurl"; system = "builtin"; url = "http://none.invalid";
          outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "";
        };
      in
      derivation { name = "it"; builder = "/bin/sh"; system = "none"; inherit file; }
    """)
    monkeypatch.setenv("PATH", str(newer_programs), prepend=":")
    instantiate = ["nix-instantiate", str(tmp_path / "it.nix")]
    whole = subprocess.run(instantiate, capture_output=True, text=True, check=True).stdout.strip()
    assert nix.built_here(whole) == [whole]
    ((path, made_by),) = nix.fixed_outputs(whole).items()
    assert path == str(store.store_path("file", hashlib.sha256(b"").hexdigest()))
    assert re.fullmatch(r"/nix/store/[0-9a-z]{32}-file\.drv", made_by)
    assert Path(made_by).is_file()


def test_paths_are_given_to_nix_a_command_line_at_a_time() -> None:
    paths = [f"p{n}" for n in range(2500)]
    assert [len(some) for some in nix.chunks(paths)] == [1000, 1000, 500]
    assert [path for some in nix.chunks(paths) for path in some] == paths
    assert list(nix.chunks([])) == []


@pytest.mark.usefixtures("nix")
def test_what_is_not_in_the_store_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("aikit-nix\n")
    there = subprocess.run(["nix-store", "--add", tmp_path / "x"], capture_output=True, text=True, check=True)
    path = there.stdout.strip()
    missing = f"{STORE}{HASH}-nothing"
    assert nix.invalid([missing, path]) == [missing]
    ((hashed, size),) = nix.sizes([path])
    assert (hashed.startswith("sha256:"), size) == (True, 128)
