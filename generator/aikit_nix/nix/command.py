"""What is said to Nix: which one is there, its settings, the command that builds."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from aikit_nix.base import console, process
from aikit_nix.base.console import Verbosity
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.base.files import read_bounded
from aikit_nix.nix import setup

# For a Nix whose settings leave them off.
_NIX = ("nix", "--extra-experimental-features", "nix-command flakes")

_AT_ONCE = 1000  # paths in one command line

# What the user gives Nix beside what is ours, for each build: `-L`, `--offline`, `--option NAME VALUE` …
arguments: tuple[str, ...] = ()

# Debian 12's.
OLDEST = (2, 8)


@lru_cache(maxsize=1)
def has_store() -> None:
    """Check that there is a Nix whose store takes something here. Raises AikitError, which says the remedy."""
    if problem := setup.problem():
        raise error(problem, code="nix-setup")


@lru_cache(maxsize=1)
def ready() -> None:
    """Check that there is a Nix which can build here, before anything is done. Raises AikitError, which says the remedy."""
    has_store()
    builds_itself = os.geteuid() == 0 and not setup.daemon()
    if builds_itself and not setup.has_build_users() and _settings().get("build-users-group"):
        file = _configuration()
        raise error(
            f"Nix wants to build as users of the group nixbld, and there are none: say that it builds as root (`echo"
            f" 'build-users-group =' >> {file}`), or make them (Debian: `apt-get install nix-setup-systemd`)",
            code="nix-setup",
        )


def require(wanted: tuple[int, int]) -> None:
    """Check that a Nix is on PATH that can build the flake. Raises AikitError."""
    ready()
    said = version()
    digits = re.search(r"(\d+)\.(\d+)", said)
    found = (int(digits[1]), int(digits[2])) if digits else (0, 0)
    if found < wanted:
        raise error(
            f"these packages need Nix {'.'.join(map(str, wanted))} or newer and `nix --version` says {said!r}: upgrade Nix, use"
            " `--packages debian` (Nix 2.8), or write the flake for another machine with --elsewhere",
            code="nix-too-old",
        )


def version() -> str:
    """What Nix says of itself: `nix (Nix) 2.8.0`. Raises AikitError where there is none."""
    return process.run(["nix", "--version"]).strip()


@dataclass(frozen=True)
class Flake:
    """How Nix is told of a flake: by a reference that counts from a folder, as no Nix takes every folder's name in one."""

    reference: str
    folder: Path | None = None


def evaluate(flake: Flake, attribute: str) -> str:
    """A text that a flake's package of this system has. Raises AikitError."""
    ready()
    return process.run([*_NIX, "eval", "--raw", f"{flake.reference}#{attribute}"], cwd=flake.folder).strip()


def build(flake: Flake, attribute: str, *, out_link: Path | None = None) -> Path:
    """The store path of one of a flake's packages of this system, built if it is not there. Raises AikitError.

    Nix says on stderr what it does meanwhile; `out_link` keeps the result from being collected as garbage.
    """
    ready()
    argv = [*_NIX, "build", "--json", f"{flake.reference}#{attribute}", *arguments]
    argv += ["--out-link", str(out_link.absolute())] if out_link else ["--no-link"]
    argv += ["--quiet"] if console.verbosity is Verbosity.QUIET else []
    with process.start(argv, cwd=flake.folder) as nix:
        assert nix.stdout  # noqa: S101 (a pipe, by start)
        said = nix.stdout.read()
        status = nix.wait()
    if status != 0:
        raise process.failure(["nix"], status, "it says why above")
    return Path(json.loads(said)[0]["outputs"]["out"])


def run(*words: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run `nix WORDS`; what it wrote to stdout. Raises AikitError."""
    ready()
    return process.run([*_NIX, *words], env=env)


def fixed_outputs(derivation: str) -> dict[str, str]:
    """What has to come from elsewhere to build a derivation: each store path with a known hash, and what makes it.

    A model's layer is none, although its hash may be known: it is made of the model, which is one.
    """
    return {
        there: path
        for path, content in _derivations(derivation).items()
        for there, output in _outputs(content)
        if output.get("hash") and "modelFile" not in content.get("env", {})
    }


def model_layers(derivation: str) -> set[str]:
    """The outputs below a derivation that hold a model a second time."""
    return {
        there
        for content in _derivations(derivation).values()
        for there, _ in _outputs(content)
        if "modelFile" in content.get("env", {})
    }


def _outputs(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The store path of each output of a derivation, if it is known, and what is said of it.

    Nix since 2.32 leaves the path out where there is a hash; the build's environment has it.
    """
    for name, output in content["outputs"].items():
        if path := output.get("path") or content.get("env", {}).get(name):
            yield _whole(path), output


def invalid(paths: Iterable[str]) -> list[str]:
    """Those of some store paths that are not in the store. Raises AikitError."""
    has_store()
    return [
        path
        for some in chunks(sorted(paths))
        for path in process.run(["nix-store", "--check-validity", "--print-invalid", *some]).split()
    ]


def chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as a command line takes."""
    return (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))


def sizes(paths: Sequence[str]) -> list[tuple[str, int]]:
    """For each store path its NAR's hash (`sha256:` and Nix' base 32) and size in bytes."""

    def ask(what: str) -> list[str]:
        return [line for some in chunks(paths) for line in process.run(["nix-store", "--query", what, *some]).split()]

    return list(zip(ask("--hash"), map(int, ask("--size")), strict=True))


def inputs(flake: Flake) -> list[str]:
    """The store paths of all inputs of a flake, brought there if they are not. Raises AikitError."""

    def below(node: Mapping[str, Any]) -> Iterator[str]:
        for each in node.get("inputs", {}).values():
            yield each["path"]
            yield from below(each)

    ready()
    return sorted(
        set(below(json.loads(process.run([*_NIX, "flake", "archive", "--json", flake.reference], cwd=flake.folder))))
    )


def built_here(derivation: str) -> list[str]:
    """The derivations below one (and itself) that a program builds, whose outputs no hash fixes beforehand."""
    return sorted(
        path
        for path, content in _derivations(derivation).items()
        if not content.get("builder", "").startswith("builtin:")
        and not any(output.get("hash") for output in content["outputs"].values())
    )


def _derivations(derivation: str) -> dict[str, Any]:
    """All derivations below one, by their store paths; newer Nix leaves the store's own path out of them."""
    shown = json.loads(process.run([*_NIX, "show-derivation", "--recursive", derivation]))
    found: dict[str, Any] = shown.get("derivations", shown)  # newer Nix wraps them
    return {_whole(path): content for path, content in found.items()}


def _whole(path: str) -> str:
    return path if path.startswith("/") else f"/nix/store/{path}"


def build_command(folder: Path, *options: str) -> str:
    """The command line that builds the flake in a folder, as a user types it on this machine.

    As `path:`, which is that folder: in a git repository Nix would take all that git tracks there.
    """
    words = ["nix", "build", *options]
    if not {"nix-command", "flakes"} <= {*_settings().get("experimental-features", "").split()}:
        words += ["--extra-experimental-features", shlex.quote("nix-command flakes")]
    if is_plain(folder):
        return " ".join([*words, f"path:{folder}"])
    # Nix takes the path for a URL; escaped as one, Nix 2.8 does not find it
    place = str(folder) if folder.is_absolute() else f"./{folder}"
    return f"cd {shlex.quote(place)} && {' '.join([*words, 'path:.'])}"


def is_plain(folder: Path) -> bool:
    """Whether every Nix takes a folder's name in a flake reference as it is."""
    return re.fullmatch(r"[A-Za-z0-9/._+-]*", str(folder)) is not None


def sandbox_warning() -> tuple[Diagnostic, ...]:
    """A warning where Nix here builds outside of its sandbox, as set up by Debian's nix-setup-systemd: which line to change.

    Builds then see the machine's files and network, and what comes out may hold what is in no flake. (`relaxed` lets out
    only what has a known hash, or asks for it, which nothing of ours does.)
    """
    if _settings().get("sandbox") != "false" or sys.platform != "linux":
        return ()
    file = _configuration()
    try:
        lines = read_bounded(file, 1 << 20).decode(errors="replace").splitlines()
    except AikitError:
        lines = []
    setting = re.compile(r"\s*(sandbox|build-use-(sandbox|chroot))\s*=")
    at = max((number for number, line in enumerate(lines, 1) if setting.match(line)), default=0)
    where = f", which line {at} sets to false" if at else ""
    text = f"Nix builds without its sandbox here, so builds see this machine's files and network: in {file}: `sandbox = true`{where} (then restart nix-daemon, if there is one)"
    return (Diagnostic(Severity.WARNING, "no-sandbox", text),)


def trusted_keys() -> list[str]:
    """The public keys (`NAME:BASE64`) whose signatures this user's Nix takes."""
    return _settings().get("trusted-public-keys", "").split()


def _configuration() -> Path:
    return Path(os.environ.get("NIX_CONF_DIR", "/etc/nix")) / "nix.conf"


@lru_cache(maxsize=1)
def _settings() -> Mapping[str, str]:
    """Nix's settings as they are for this user; without experimental-features where it does not say without one.

    As text: in Nix 2.8's JSON the experimental features are numbers. Takes 50 ms a call.
    """
    with suppress(AikitError):
        return _pairs(process.run(["nix", "show-config"]))
    feature = ["--extra-experimental-features", "nix-command"]
    for command in (["show-config"], ["config", "show"]):  # the latter since 2.20, which keeps the former, for now
        with suppress(AikitError):
            settings = _pairs(process.run(["nix", *command, *feature]))
            return {key: value for key, value in settings.items() if key != "experimental-features"}
    return {}


def _pairs(text: str) -> Mapping[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+) = (.*)$", text, re.MULTILINE))
