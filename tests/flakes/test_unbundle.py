"""A bundle on another machine: what is damaged, missing or changed in it is named, and never imported."""

from __future__ import annotations

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
from aikit_nix.flakes import bundle as writer
from aikit_nix.flakes import unbundle
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
    done = fresh.aikit_nix(machine, "unbundle", damaged, "--flake", "flake", cwd=tmp_path)
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
    done = aikit_nix("unbundle", bundle.folder, "--flake", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_what_somebody_changed_throughout_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """NAR, description and index agree, without a signature: the store path itself says which bytes it has."""
    copy = forged(bundle, tmp_path)
    bundles.forge(copy, "tiny.gguf", b"trojan")
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", copy.folder, cwd=tmp_path)
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
        (lambda index: index.update(formatVersion=1), "it has the format 1, this aikit-nix reads 2"),
        (lambda index: index.pop("paths"), "'paths'"),
        (lambda index: index.update(paths=7), "$.paths is no list"),
        (lambda index: index["paths"].append("x"), "damaged"),
        (lambda index: index["paths"][0].update(kind="virus"), "virus"),
        (lambda index: index["paths"][0].update(path="/nix/store/../../etc/passwd"), "is no store path"),
        (lambda index: index["paths"][0].update(path=f"/nix/store/{'a' * 32}-x y"), "is no store path"),
        (lambda index: index["paths"][0].update(path=7), "$.paths[0].path is no text"),
        (lambda index: index.update(files=[]), "damaged"),
        (lambda index: index["files"].update({"flake/x": "1" * 63}), "is no sha256"),
        (lambda index: index["files"].update({"nar/../../x": "1" * 64}), "is no file of a bundle"),
        (lambda index: index["files"].pop("nix-cache-info"), "it names no nix-cache-info"),
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
        (lambda text: re.sub("URL: .*", "URL: ../../etc/passwd", text), "URL '../../etc/passwd'"),
        (lambda text: re.sub("URL: .*", "URL: https://evil.example/x.nar", text), "URL 'https://evil.example/x.nar'"),
        (lambda text: re.sub("URL: .*", "URL: nar/0.nar", text), "the index does not name nar/0.nar"),
        (lambda text: re.sub("FileSize: .*", "FileSize: -1", text), "bytes, not -1"),
        (lambda text: re.sub("StorePath: .*", "StorePath: /nix/store/other", text), "says otherwise than the index"),
        (lambda text: text + "NarHash: sha256:0", "makes no sense there"),
        (lambda text: text.replace("NarHash", "Narhash"), "it lacks NarHash"),
        (lambda _: "\0\u00ff", "makes no sense there"),
        (lambda _: "", "it lacks FileHash"),
    ],
)
def test_a_description_that_leads_elsewhere_is_named(
    bundle: Bundle, tmp_path: Path, narinfo: Callable[[str], str], problem: str
) -> None:
    copy = forged(bundle, tmp_path)
    file = copy.folder / copy.narinfo("tiny.gguf")
    text = file.read_text()
    file.unlink()
    file.write_text(narinfo(text))
    bundles.reindex(copy)
    with pytest.raises(AikitError) as refused:
        unbundle.content(unbundle.read(copy.folder))
    assert "the bundle's tiny.gguf is damaged" in str(refused.value)
    assert problem in str(refused.value)


def test_the_flake_is_written_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    content = unbundle.content(unbundle.read(bundle.folder))
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "new/flake", tmp_path / "empty"):
        unbundle.write_flake(content, output)
        written = {str(file.relative_to(output)): file for file in output.rglob("*") if file.is_file()}
        assert {name: file.read_bytes() for name, file in written.items()} == FLAKE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]
    (tmp_path / "file").touch()
    with pytest.raises(AikitError, match="cannot write"):
        unbundle.write_flake(content, tmp_path / "file/flake")


# --- Bundles of somebody who means harm: all that can be made to agree, agrees


def forged(bundle: Bundle, folder: Path) -> Bundle:
    """A copy that may be changed file by file."""
    shutil.copytree(bundle.folder, folder / "copy", copy_function=os.link)
    return Bundle(folder / "copy")


def without(field: str) -> Callable[[str], str]:
    return lambda text: re.sub(f"^{field}: .*\n", "", text, flags=re.MULTILINE)


TROJAN: dict[str, tuple[Callable[[str], str], str]] = {
    "no CA": (without("CA"), "model"),
    "no CA, as built": (without("CA"), "built"),
    "another CA": (lambda text: re.sub("^CA: .*$", "CA: fixed:sha256:" + "0" * 52, text, flags=re.MULTILINE), "model"),
    "a CA of text": (lambda text: text.replace("CA: fixed:", "CA: text:"), "model"),
    "two CAs": (lambda text: text + "CA: \n", "model"),
    "a CA and a reference": (
        lambda text: re.sub("^References: .*$", f"References: {'a' * 32}-x", text, flags=re.MULTILINE),
        "model",
    ),
}


@pytest.mark.parametrize("what", TROJAN)
@pytest.mark.parametrize("settings", ["", "require-sigs = false\n"])
def test_no_other_bytes_come_under_the_name_of_a_model(
    what: str, settings: str, bundle: Bundle, tmp_path: Path
) -> None:
    change, kind = TROJAN[what]
    copy = forged(bundle, tmp_path)
    bundles.forge(copy, "tiny.gguf", b"trojan", change)

    def relabel(index: Any) -> None:
        next(item for item in index["paths"] if item["path"] == bundle.path("tiny.gguf"))["kind"] = kind

    bundles.reindex(copy, relabel)
    env = {"NIX_CONFIG": os.environ.get("NIX_CONFIG", "") + "\n" + settings}
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", copy.folder, "-o", "flake", cwd=tmp_path, env=env)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "tiny.gguf" in done.stderr
    assert not (tmp_path / "flake").exists()
    assert not valid(tmp_path / "nix", bundle.path("tiny.gguf"), tmp_path)


def signed(bundle: Bundle, folder: Path) -> tuple[Bundle, str]:
    """A signed copy, and the public key."""
    copy = forged(bundle, folder)
    secret, public = bundles.key(folder)
    writer.sign_index(copy.folder, secret)
    return copy, public


def change_and_reindex(copy: Bundle) -> None:
    flip(copy.folder / "flake/flake.nix")
    bundles.reindex(copy)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda copy: bundles.reindex(copy, lambda index: index.update(image="another")), "is not signed by"),
        (lambda copy: (copy.folder / "bundle.json.sig").unlink(), "is not signed"),
        (lambda copy: (copy.folder / "bundle.json.sig").write_bytes(b"ci-1:AAAA\n\xff"), "is not signed by"),
        (lambda copy: flip(copy.folder / "flake/flake.nix"), "flake/flake.nix"),
        (change_and_reindex, "is not signed by"),
    ],
)
def test_of_a_signed_bundle_nothing_is_written_before_the_signature_is_right(
    bundle: Bundle, tmp_path: Path, attack: Callable[[Bundle], object], message: str
) -> None:
    copy, public = signed(bundle, tmp_path)
    attack(copy)
    arguments = ("unbundle", copy.folder, "--public-key", public, "-o", "flake")
    done = fresh.aikit_nix(tmp_path / "nix", *arguments, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert message in done.stderr
    assert not (tmp_path / "flake").exists()
    assert not valid(tmp_path / "nix", bundle.path("tiny.gguf"), tmp_path)


def test_a_signed_bundle_is_taken_by_its_key_or_by_one_that_nix_trusts(bundle: Bundle, tmp_path: Path) -> None:
    copy, public = signed(bundle, tmp_path)
    (tmp_path / "other").mkdir()
    _, other = bundles.key(tmp_path / "other")
    refused = aikit_nix("unbundle", copy.folder, "--public-key", other, cwd=tmp_path)
    assert refused.returncode == 1
    assert "is not signed by ci-1" in refused.stderr
    done = aikit_nix("unbundle", copy.folder, "--public-key", public, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "signed by ci-1" in done.stdout
    env = {**os.environ, "NIX_CONFIG": f"{os.environ.get('NIX_CONFIG', '')}\nextra-trusted-public-keys = {public}"}
    done = aikit_nix("unbundle", copy.folder, cwd=tmp_path, env=env)
    assert "signed by ci-1" in done.stdout
    unsigned = aikit_nix("unbundle", copy.folder, cwd=tmp_path)
    assert unsigned.returncode == 0, unsigned.stderr
    assert "no key that is trusted here signed it" in unsigned.stdout


@pytest.mark.parametrize(
    "name",
    [".git/config", ".envrc", "aikit/.direnv/x", "../x", "/x", "aikit/../../x", "aikit//x", "./x", "x\x1b[2J", ""],
)
def test_no_file_of_another_program_is_written(name: str, bundle: Bundle, tmp_path: Path) -> None:
    copy = said(bundle, tmp_path, lambda index: index["files"].update({f"flake/{name}": "1" * 64}))
    done = aikit_nix("unbundle", copy, "-o", "flake", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "is no file of a bundle" in done.stderr
    assert not (tmp_path / "flake").exists()


def test_what_is_not_named_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    copy = forged(bundle, tmp_path)
    (copy.folder / "flake/.envrc").write_text("evil")
    (copy.folder / "flake/aikit/extra.nix").write_text("evil")
    done = aikit_nix("unbundle", copy.folder, "-o", "flake", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(tmp_path / "flake")) for path in (tmp_path / "flake").rglob("*")} == {*FLAKE, "aikit"}


@pytest.mark.parametrize("name", ["bundle.json", "flake/flake.nix", "nix-cache-info"])
def test_a_sparse_file_is_not_read_whole(name: str, bundle: Bundle, tmp_path: Path) -> None:
    copy = forged(bundle, tmp_path)
    (copy.folder / name).unlink()
    with (copy.folder / name).open("wb") as stream:
        stream.truncate(20 << 30)
    done = aikit_nix("unbundle", copy.folder, "-o", "flake", cwd=tmp_path, limits=(2 << 30, 60))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "has more than" in done.stderr
    assert not (tmp_path / "flake").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from aikit_nix.cli import main
left, rename, replace = int(sys.argv.pop(1)), Path.rename, Path.replace
def counted(real):
    def change(*places):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*places)
    return change
Path.rename, Path.replace = counted(rename), counted(replace)
main()
"""


@pytest.mark.parametrize("after", [0, 1])
def test_killed_while_it_writes_the_flake_it_leaves_nothing_beside_and_goes_on(
    after: int, bundle: Bundle, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["unbundle", str(bundle.folder), "-o", "flake"]
    process = subprocess.run([sys.executable, "-c", KILLED, str(after), *arguments], cwd=tmp_path, check=False)
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "flake"}
    for _ in range(2):  # the second time it is done already
        done = aikit_nix(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        files = [path for path in (tmp_path / "flake").rglob("*") if path.is_file()]
        assert {str(path.relative_to(tmp_path / "flake")): path.read_bytes() for path in files} == FLAKE
