"""A bundle on another machine: what is damaged, missing or changed in it is named, and never imported."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import unbundle
from aikit_nix.nix import store
from support import bundles, fresh
from support.bundles import Bundle
from support.command import aikit_nix

BIG = 48 << 20
FLAKE = {"flake.nix": b"{ outputs = _: { }; }\n", "aikit/plan.json": b"{}\n"}


@pytest.fixture(scope="module")
def bundle(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if problem := fresh.problem():
        pytest.skip(problem)
    models = {"tiny.gguf": os.urandom(5000), "big.gguf": os.urandom(BIG)}
    return bundles.make(tmp_path_factory.mktemp("bundle") / "bundle", models, FLAKE)


def flip(file: Path) -> None:
    """Change one bit in the middle, in a copy: the files of `damaged` are links to those of the bundle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[: len(data) // 2])


DAMAGE: dict[str, tuple[Callable[[Bundle], str], Callable[[Path], None], str]] = {
    "a bit of a model": (lambda bundle: bundle.nar("big.gguf"), flip, "big.gguf"),
    "half of a model": (lambda bundle: bundle.nar("big.gguf"), cut, "big.gguf"),
    "no model": (lambda bundle: bundle.nar("big.gguf"), Path.unlink, "big.gguf"),
    "no description": (lambda bundle: bundle.narinfo("tiny.gguf"), Path.unlink, "tiny.gguf"),
    "a bit of a description": (lambda bundle: bundle.narinfo("tiny.gguf"), flip, "tiny.gguf"),
    "half of the index": (lambda _: "bundle.json", cut, "bundle.json"),
    "no index": (lambda _: "bundle.json", Path.unlink, "bundle.json"),
    "a bit of the flake": (lambda _: "flake/aikit/plan.json", flip, "flake/aikit/plan.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named_and_not_imported(what: str, bundle: Bundle, tmp_path: Path) -> None:
    where, damage, name = DAMAGE[what]
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle.folder, damaged, copy_function=os.link)
    damage(damaged / where(bundle))
    machine = tmp_path / "nix"
    done = fresh.aikit_nix(machine, "unbundle", damaged, "-o", "flake", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "flake").exists()
    if name.endswith(".gguf"):
        assert not valid(machine, bundle.path(name), tmp_path)
        assert len(done.stderr.splitlines()) == 1, done.stderr


def valid(machine: Path, path: str, cwd: Path) -> bool:
    """Whether a store has a path; and that what it has is whole."""
    verified = fresh.run(machine, "nix-store", "--verify", "--check-contents", cwd=cwd)
    assert verified.returncode == 0, verified.stderr
    return fresh.run(machine, "nix-store", "--check-validity", path, cwd=cwd).returncode == 0


def test_killed_it_leaves_nothing_half_and_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    machine = tmp_path / "nix"
    command = [sys.executable, "-m", "aikit_nix.cli", "unbundle", str(bundle.folder)]
    with subprocess.Popen(fresh.argv(machine, command), start_new_session=True) as process:
        half = machine / Path(bundle.path("big.gguf")).relative_to("/nix")
        while not half.exists() or half.stat().st_size == 0:
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not valid(machine, bundle.path("big.gguf"), tmp_path)
    done = fresh.aikit_nix(machine, "unbundle", bundle.folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert valid(machine, bundle.path("big.gguf"), tmp_path)


def test_a_full_disk_is_said(bundle: Bundle, tmp_path: Path) -> None:
    script = f"{sys.executable} -m aikit_nix.cli unbundle {bundle.folder}; echo status $?; nix-store --check-validity {bundle.path('big.gguf')}"
    done = fresh.run("40m", "sh", "-c", script, cwd=tmp_path)
    assert "status 1" in done.stdout
    assert "No space left on device" in done.stderr
    assert "run it again" in done.stderr
    assert re.search("path '.*big.gguf' is not valid", done.stderr)


def test_a_folder_that_is_not_empty_stays_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    done = aikit_nix("unbundle", bundle.folder, "-o", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_what_somebody_changed_throughout_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """NAR, description and index agree, without a signature: the store path itself says which bytes it has."""
    changed = tmp_path / "changed"
    shutil.copytree(bundle.folder, changed)
    nar, narinfo = changed / bundle.nar("tiny.gguf"), changed / bundle.narinfo("tiny.gguf")
    flip(nar)
    digest = hashlib.sha256(nar.read_bytes()).digest()
    text = narinfo.read_text()
    before = re.search("^NarHash: (.*)$", text, re.MULTILINE)[1]  # type: ignore[index]
    now = f"sha256:{store.base32(digest)}"
    narinfo.write_text(text.replace(before, now))
    index = (changed / "bundle.json").read_text().replace(before, now)
    old, new = (hashlib.sha256(each.encode()).hexdigest() for each in (text, narinfo.read_text()))
    (changed / "bundle.json").write_text(index.replace(old, new))
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", changed, cwd=tmp_path)
    assert done.returncode == 1
    assert "tiny.gguf" in done.stderr
    assert "hash mismatch" in done.stderr
    assert not valid(tmp_path / "nix", bundle.path("tiny.gguf"), tmp_path)


# --- What an index may say


def said(bundle: Bundle, folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of the bundle whose index says something else."""
    shutil.copytree(bundle.folder, folder / "copy", copy_function=os.link)
    index = json.loads((bundle.folder / "bundle.json").read_text())
    change(index)
    (folder / "copy/bundle.json").unlink()
    (folder / "copy/bundle.json").write_text(json.dumps(index))
    return folder / "copy"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(formatVersion=2), "it has the format 2, this aikit-nix reads 1"),
        (lambda index: index.pop("paths"), "'paths'"),
        (lambda index: index.update(paths=7), "not iterable"),
        (lambda index: index["paths"].append("x"), "damaged"),
        (lambda index: index["paths"][0].update(kind="virus"), "virus"),
        (lambda index: index["paths"][0].update(path="/nix/store/../../etc/passwd"), "is no store path"),
        (lambda index: index["paths"][0].update(path=f"/nix/store/{'a' * 32}-x y"), "is no store path"),
        (lambda index: index["paths"][0].update(path=7), "is no store path"),
        (lambda index: index["flake"].update({"../flake.nix": "1" * 64}), "leaves the flake's folder"),
        (lambda index: index["flake"].update({"/etc/cron.d/x": "1" * 64}), "leaves the flake's folder"),
        (lambda index: index["flake"].update({"": "1" * 64}), "leaves the flake's folder"),
        (lambda index: index.update(flake=[]), "damaged"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(
    bundle: Bundle, tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    folder = said(bundle, tmp_path, change)
    with pytest.raises(AikitError) as refused:
        unbundle.read(folder)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("narinfo", "problem"),
    [
        ("URL: ../../etc/passwd\nFileSize: 1\n", "URL '../../etc/passwd'"),
        ("URL: https://evil.example/x.nar\nFileSize: 1\n", "URL 'https://evil.example/x.nar'"),
        ("URL: nar/0.nar\nFileSize: 1\n", "nar/0.nar is missing"),
        ("URL: {nar}\nFileSize: -1\n", "bytes, not -1"),
        ("URL: {nar}\nFileSize: many\n", "is no description of a store path"),
        ("URL: {nar}\nFileSize: {size}\nStorePath: /nix/store/other\n", "says otherwise than the index"),
        ("\0\xff", "is no description of a store path"),
        ("", "is no description of a store path"),
    ],
)
def test_a_description_that_leads_elsewhere_is_named(
    bundle: Bundle, tmp_path: Path, narinfo: str, problem: str
) -> None:
    folder = said(bundle, tmp_path, lambda _: None)
    nar = bundle.nar("tiny.gguf")
    text = narinfo.format(nar=nar, size=(folder / nar).stat().st_size)
    (folder / bundle.narinfo("tiny.gguf")).unlink()
    (folder / bundle.narinfo("tiny.gguf")).write_text(text, encoding="latin-1")
    found = unbundle.check(folder, unbundle.read(folder))
    assert all("the bundle's tiny.gguf is damaged" in each.message for each in found)
    assert problem in found[0].message


def test_the_flake_is_written_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    index = unbundle.read(bundle.folder)
    assert unbundle.check(bundle.folder, index) == []
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "new/flake", tmp_path / "empty"):
        unbundle.write_flake(bundle.folder, index, output)
        written = {str(file.relative_to(output)): file for file in output.rglob("*") if file.is_file()}
        assert {name: file.read_bytes() for name, file in written.items()} == FLAKE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]
    (tmp_path / "file").touch()
    with pytest.raises(AikitError, match="cannot write"):
        unbundle.write_flake(bundle.folder, index, tmp_path / "file/flake")
