"""Plan → flake folder: render, write all or nothing, show it to Nix."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aikit_nix import data, library, nix, process
from aikit_nix.errors import AikitError, Diagnostic, Severity, error
from aikit_nix.plan import Packages, Plan

# flake.nix goes last: while it is missing or old, the folder is no new flake.
_PARTS = ("aikit", "flake.lock", "flake.nix")
_DEBIAN_LOCK = "aikit/packages/debian/lock.json"
_SEAL = "# aikit-nix "
_MODEL_SUFFIXES = (".gguf", ".safetensors", ".bin")
_LARGE_BYTES = 50_000_000
# What a flake reference may hold here: it is the one value that stands in Nix code.
_FLAKE_REF = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9/._~+:@?=&%-]+")


@dataclass(frozen=True)
class Files:
    """The files of a flake: paths relative to its folder → bytes."""

    content: Mapping[str, bytes]

    def top_level(self) -> tuple[str, ...]:
        """The files and folders that lie directly in the flake's folder."""
        return tuple(sorted({path.split("/", 1)[0] for path in self.content}))


def render(plan: Plan, nixpkgs: str | None = None, debian_lock: Path | None = None) -> Files:
    """All files of the plan's flake.

    `nixpkgs` is another revision (40 hex digits) or flake reference than the pinned one: Nix then writes the
    flake.lock itself. `debian_lock` replaces the shipped lock of the Debian packages.
    """
    content = {f"aikit/{path}": text for path, text in library.files(plan).items()}
    if debian_lock:
        from aikit_nix.debian import Lock

        content[_DEBIAN_LOCK] = Lock.read(debian_lock).to_json().encode()
    content["aikit/plan.json"] = plan.to_json().encode()
    reference = None
    if plan.packages is Packages.NIXPKGS:
        pinned = (data.TEMPLATES / "flake.lock").read_bytes()
        reference = _reference(nixpkgs) if nixpkgs else _pinned_reference(pinned)
        if not nixpkgs:
            content["flake.lock"] = pinned
    content["flake.nix"] = _template("flake.nix.j2", nixpkgs=reference).encode()
    content["flake.nix"] = _seal(content) + content["flake.nix"]
    return Files(content)


def _template(name: str, **values: object) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Nix, not HTML; values are checked before)
    )
    return environment.get_template(name).render(**values)


def _pinned_reference(lock: bytes) -> str:
    original = json.loads(lock)["nodes"]["nixpkgs"]["original"]
    return f"github:{original['owner']}/{original['repo']}/{original['rev']}"


def _reference(nixpkgs: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", nixpkgs):
        return f"github:NixOS/nixpkgs/{nixpkgs}"
    if _FLAKE_REF.fullmatch(nixpkgs):
        return nixpkgs
    raise error(f"--nixpkgs {nixpkgs!r}: give a revision (40 hex digits) or a flake reference (path:/srv/nixpkgs)")


def _seal(content: Mapping[str, bytes]) -> bytes:
    """flake.nix's first line: a hash of all that was written, which tells an edited flake from a written one.

    flake.lock stays out of it: `nix flake update` may change that.
    """
    hasher = hashlib.sha256()
    for path in sorted(content):
        if path != "flake.lock":
            hasher.update(f"{path}\0{len(content[path])}\0".encode() + content[path])
    return f"{_SEAL}{hasher.hexdigest()}\n".encode()


def _is_ours(folder: Path) -> bool:
    """Whether all that lies where a flake's files go was written by aikit-nix and not changed since."""
    try:
        paths = [folder / "flake.nix", *(folder / "aikit").rglob("*")]
        content = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in paths
            if path.is_file() and "__pycache__" not in path.parts
        }
    except OSError:
        return False
    seal, _, content["flake.nix"] = content.get("flake.nix", b"").partition(b"\n")
    return seal + b"\n" == _seal(content)


def write(files: Files, folder: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write a flake so that the folder holds the old one or the new one, whatever fails.

    Returns what `force` set aside, under names that end in `~`. Raises AikitError, with nothing written, when
    the folder holds files in these places that aikit-nix did not write, or that were edited since, and
    `force` is not set.
    """
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is no folder: name another one with -o")
    foreign = [folder / part for part in _PARTS if (folder / part).exists()] if not _is_ours(folder) else []
    if foreign and not force:
        raise error(
            f"{foreign[-1]} was not written by aikit-nix, or was changed since: name another folder with -o, "
            "or set it aside with --force",
            code="foreign-files",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aikit-nix-", dir=folder) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            old.mkdir()
            for path, content in files.content.items():
                target = new / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            _exchange(folder, new, old)
            return tuple(_set_aside(old / path.name, path) for path in foreign)
    except OSError as exception:
        raise error(f"cannot write the flake to {folder}: {exception.strerror} ({exception.filename})") from None


def _exchange(folder: Path, new: Path, old: Path) -> None:
    """Put the new parts in the place of the old ones; put the old ones back if that fails."""
    try:
        for part in _PARTS:
            if (folder / part).exists():
                (folder / part).rename(old / part)
            if (new / part).exists():
                (new / part).rename(folder / part)
    except BaseException:
        for former in old.iterdir():
            if (folder / former.name).is_dir():
                shutil.rmtree(folder / former.name)
            former.rename(folder / former.name)
        raise


def _set_aside(old: Path, path: Path) -> Path:
    names = (path.with_name(path.name + "~" * count) for count in itertools.count(1))
    return old.rename(next(name for name in names if not name.exists()))


def show_to_nix(files: Files, folder: Path) -> tuple[Diagnostic, ...]:
    """In a git repository a flake sees only files that git knows: add them, as `nix flake init` does.

    Returns a warning where git could not do it.
    """
    if not _git_root(folder):
        return ()
    try:
        process.run(["git", "add", "--intent-to-add", "--force", "--", *files.top_level()], cwd=folder)
    except AikitError as exception:
        text = f"in a git repository Nix sees only files that git knows: run `git add` ({exception})"
        return (Diagnostic(Severity.WARNING, "git-add", text),)
    return ()


def fetch_inputs(folder: Path) -> int:
    """Realise every fixed output that the flake's default image is made of; the number of those that were missing.

    Nix downloads them with its own means, in its own order. Raises AikitError.
    """
    reference = nix.flake_reference(folder)
    derivation = nix.evaluate(reference, "default.drvPath")
    missing = nix.missing_fixed_outputs(derivation)
    if missing:
        process.run(["nix-store", "--realise", *missing], env=_environment())
    return len(missing)


def _environment() -> dict[str, str]:
    from aikit_nix import debian

    return debian.build_environment()


def _git_root(folder: Path) -> Path | None:
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def copied_models(folder: Path, sources: Iterable[Path]) -> tuple[Diagnostic, ...]:
    """A warning for each model file that Nix would copy into the store together with the flake.

    Outside of git that is every file of the folder; inside, what git tracks. A symlink is copied as a link.
    """
    folder = folder.resolve()
    root = _git_root(folder)
    base = root or folder
    candidates = {path.absolute() for path in sources}
    candidates |= {path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES}
    large = sorted(
        path
        for path in candidates
        if path.is_relative_to(base)
        and path.is_file()
        and not path.is_symlink()
        and path.stat().st_size > _LARGE_BYTES
        and (root is None or process.succeeds(["git", "ls-files", "--error-unmatch", "--", path], cwd=base))
    )
    mend = (
        "keep it out of git"
        if root
        else "write the flake elsewhere with -o, or keep the model elsewhere behind a symlink"
    )
    return tuple(
        Diagnostic(
            Severity.WARNING,
            "model-in-flake",
            f"{path} ({path.stat().st_size / 1e9:.1f} GB) lies in the flake's source, "
            f"which Nix copies at each build: {mend}",
        )
        for path in large
    )
