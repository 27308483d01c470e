"""`aikit-nix bundle` and `unbundle`: a build on a machine with an empty store and no network, and what may go wrong.

One flake is bundled for the whole module. The other machine is a namespace (`support.fresh`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import debian_lock, docs, file_server, flakes, fresh, recipes
from support.bundles import Bundle, forge, key
from support.command import aikit_nix, on_path

AIKITFILE = """\
apiVersion: v1alpha1
models:
  - name: tiny
    source: tiny.gguf
  - name: big
    source: big.gguf
"""


@dataclass(frozen=True)
class Project:
    """An aikitfile, its flake, the image that Nix built here, and the bundle."""

    folder: Path
    image: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def index(self) -> list[dict[str, str]]:
        return Bundle(self.bundle).index


@pytest.fixture(scope="module")
def project(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    if problem := fresh.problem():
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copy(tiny_model, folder / "tiny.gguf")
    (folder / "big.gguf").write_bytes(tiny_model.read_bytes() + os.urandom(48 << 20))
    (folder / "aikitfile.yaml").write_text(AIKITFILE)
    with pytest.MonkeyPatch.context() as patch:
        flakes.environment(folder, patch)
        for command in (["lock"], ["gen", "--packages", "debian", "--flake", "flake"]):
            done = aikit_nix(*command, cwd=folder)
            assert done.returncode == 0, done.stderr
        built = flakes.build(folder / "flake")
        done = aikit_nix("bundle", "bundle", "--flake", "flake", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^model +2 ", done.stdout, re.MULTILINE)
        assert "licence: Debian main" in done.stdout
        yield Project(folder, built)


def build_offline(machine: Path, flake: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`nix build` without network; where strace is there, it shows that nobody tried to talk to anybody."""
    traced: list[str | Path] = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=connect,sendto,sendmsg",
        "-o",
        cwd / "trace",
    ]
    command = ["nix", "build", "--offline", f"path:{flake}", "--no-link", "--json"]
    done = fresh.run(machine, *(traced if shutil.which("strace") else []), *command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    if shutil.which("strace"):
        assert "AF_INET" not in (cwd / "trace").read_text()
    return done


def same_image(done: subprocess.CompletedProcess[str], machine: Path, image: Path) -> None:
    """The image that was built there is the one that was built here, byte for byte."""
    there = machine / Path(json.loads(done.stdout)[0]["outputs"]["out"]).relative_to("/nix")
    assert (there / "index.json").read_bytes() == (image / "index.json").read_bytes()


def test_unbundled_it_builds_the_same_image_without_a_network(project: Project, tmp_path: Path) -> None:
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", project.bundle, "--flake", "flake", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    same_image(build_offline(tmp_path / "nix", tmp_path / "flake", tmp_path), tmp_path / "nix", project.image)


def test_fetched_it_builds_the_same_image_without_a_network(project: Project, tmp_path: Path) -> None:
    """`fetch` needs a mirror; everything after it needs nothing."""
    with file_server.serve() as mirror:
        machine, env = tmp_path / "nix", debian_lock.mirror_of_store(mirror)
        arguments = ("fetch", project.folder / "aikitfile.yaml", "--flake", project.folder / "flake")
        done = fresh.aikit_nix(machine, *arguments, cwd=tmp_path, network=True, env=env)
        assert done.returncode == 0, done.stderr
        assert f"{len(project.index) - 2} files of it new" in done.stdout
    same_image(build_offline(machine, project.folder / "flake", tmp_path), machine, project.image)


def test_what_is_there_is_not_copied_again(project: Project, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.bundle.glob("nar/*")}
    done = aikit_nix("bundle", project.bundle, "--flake", project.folder / "flake", cwd=tmp_path)
    assert done.returncode == 0
    assert "0 B of it new" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in project.bundle.glob("nar/*")} == before


def test_the_index_says_what_everything_is(project: Project) -> None:
    index = {item["path"]: item for item in project.index}
    assert {item["kind"] for item in index.values()} == {"model", "debian package"}
    libc = next(item for path, item in index.items() if "libc6_" in path)
    assert libc["license"] == "Debian main: usr/share/doc/libc6/copyright"
    for item in index.values():
        said = subprocess.run(["nix-store", "-q", "--hash", item["path"]], capture_output=True, text=True, check=True)
        assert item["narHash"] == said.stdout.strip()


def test_what_was_built_is_trusted_by_signature_only(project: Project, tmp_path: Path) -> None:
    secret = subprocess.run(["nix", "key", "generate-secret", "--key-name", "ci-1"], capture_output=True, check=True)
    (tmp_path / "key").write_bytes(secret.stdout)
    public = subprocess.run(["nix", "key", "convert-secret-to-public"], input=secret.stdout, capture_output=True)
    flake, machine = project.folder / "flake", tmp_path / "nix"
    done = aikit_nix("bundle", "signed", "--built", "--key", "key", "--flake", flake, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^built +\d\d ", done.stdout, re.MULTILINE)

    refused = fresh.aikit_nix(machine, "unbundle", "signed", cwd=tmp_path)
    assert refused.returncode == 1
    assert "name the key with --public-key" in refused.stderr
    done = fresh.aikit_nix(
        machine, "unbundle", "signed", "--public-key", public.stdout.decode(), "--flake", "flake", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    done = build_offline(machine, tmp_path / "flake", tmp_path)
    same_image(done, machine, project.image)
    # What the models are in is all that was left to do
    assert "tiny-oci.drv" in done.stderr
    assert "debian-avx.drv" not in done.stderr


def test_to_another_cache(project: Project, tmp_path: Path) -> None:
    flake, there = project.folder / "flake", tmp_path / "there"
    done = aikit_nix("bundle", "here", "--to", f"file://{there}", "--flake", flake, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in there.glob("*.narinfo")} == {
        path.name for path in (tmp_path / "here").glob("*.narinfo")
    }


def test_a_folder_of_something_else_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = aikit_nix("bundle", ".", "--flake", "flake", cwd=tmp_path)
    assert done.returncode == 1
    assert "has a `flake` that is of no bundle" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_password_of_another_cache_is_not_shown(project: Project, tmp_path: Path) -> None:
    flake, url = project.folder / "flake", "http://me:s3cret-word@127.0.0.1:1/cache"
    done = aikit_nix("bundle", "-v", "here", "--to", url, "--flake", flake, cwd=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1:1/cache" in done.stderr
    assert "s3cret-word" not in done.stdout + done.stderr


def test_a_model_that_is_not_in_the_store_is_named(project: Project, tmp_path: Path) -> None:
    done = fresh.aikit_nix(tmp_path / "nix", "bundle", "b", "--flake", project.folder / "flake", cwd=tmp_path)
    assert done.returncode == 1
    assert "/models/big.gguf is not in the Nix store: bring it there with `aikit-nix fetch`" in done.stderr
    assert not (tmp_path / "b/bundle.json").exists()


def test_bundling_that_was_killed_goes_on(project: Project, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aikit_nix.cli", "bundle", "b", "--flake", str(project.folder / "flake")]
    bundle = tmp_path / "b"
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True) as process:
        while not list(bundle.glob("*.narinfo")):
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (bundle / "bundle.json").exists()
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", bundle, cwd=tmp_path)
    assert "it was not finished" in done.stderr
    done = aikit_nix(*command[3:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in bundle.iterdir()} >= {"bundle.json", "flake", "nar"}
    assert not (bundle / ".aikit-nix-bundle").exists()
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def on(folder: Path, machine: Path | None, script: str, cwd: Path, **places: Path) -> None:
    """Run an example of the docs, here or on another machine, with other places than those in it."""
    for name, place in places.items():
        script = script.replace(f"/media/disk/{name}", str(place))
    env = {**os.environ, **on_path(folder / "bin")}
    command = ["bash", "-euxo", "pipefail", "-c", script]
    if machine:
        done = fresh.run(machine, *command, cwd=cwd, env=env)
    else:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_docs_say_how(project: Project, tmp_path: Path) -> None:
    bundle, unbundle, only_nix, sign, trust = docs.blocks("hermetic.md", "A bundle")
    places = {"llama": tmp_path / "disk", "built": tmp_path / "built"}
    on(tmp_path, None, bundle, project.folder, **places)
    for number, script in enumerate((unbundle, only_nix)):
        (tmp_path / str(number)).mkdir()
        machine = tmp_path / f"nix{number}"
        on(tmp_path, machine, script, tmp_path / str(number), **places)
        there = machine / project.image.relative_to("/nix")
        assert (there / "index.json").read_bytes() == (project.image / "index.json").read_bytes()
        assert (tmp_path / str(number) / "result").readlink() == project.image
    (tmp_path / "signed").mkdir()
    shutil.copytree(project.folder / "flake", tmp_path / "signed/flake")
    shutil.copy(project.folder / "aikit.lock", tmp_path / "signed")
    on(tmp_path, None, sign, tmp_path / "signed", **places)
    shutil.rmtree(tmp_path / "signed/flake")
    on(tmp_path, tmp_path / "nix2", trust, tmp_path / "signed", **places)
    assert (tmp_path / "signed/flake/flake.nix").is_file()


# --- A folder that holds more than `gen` wrote


def refused(folder: Path, *words: str) -> str:
    """What is said where a flake is not bundled; with little memory, and nothing is written."""
    done = aikit_nix("bundle", "b", "--flake", "flake", *words, cwd=folder, limits=(2 << 30, 60))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert not (folder / "b/flake").exists()
    return done.stderr


def test_a_link_in_a_flake_is_not_followed(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    (tmp_path / "secret").write_text("private")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "flake/aikit/notes.nix").symlink_to(tmp_path / "secret")
    assert "aikit/notes.nix is a link" in refused(tmp_path)


def test_a_pipe_in_a_flake_is_not_waited_for(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    os.mkfifo(tmp_path / "flake/aikit/notes.nix")
    assert "it is a pipe" in refused(tmp_path)


def test_a_sparse_file_in_a_flake_is_not_read_whole(tmp_path: Path) -> None:
    recipes.write(tmp_path / "flake")
    with (tmp_path / "flake/aikit/notes.nix").open("wb") as stream:
        stream.truncate(20 << 30)
    assert "notes.nix: it has more than" in refused(tmp_path)


def test_a_private_file_stays_private(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.folder / "flake", tmp_path / "flake")
    (tmp_path / "flake/aikit/plan.json").chmod(0o600)
    lock = ["--lock", str(project.folder / "aikit.lock")]
    done = aikit_nix("bundle", "b", "--flake", "flake", *lock, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b/flake/aikit/plan.json").stat().st_mode & 0o777 == 0o600


def test_two_at_once_wait_for_each_other(project: Project, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    bundle.mkdir()
    handle = os.open(bundle, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    command = [sys.executable, "-m", "aikit_nix.cli", "bundle", "b", "--flake", str(project.folder / "flake")]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr
        assert b"waiting for another aikit-nix" in process.stderr.readline()
        assert not list(bundle.iterdir())
        os.close(handle)
        process.communicate()
    assert process.returncode == 0
    assert (bundle / "bundle.json").exists()


def test_every_file_is_named_with_its_hash(project: Project) -> None:
    files = json.loads((project.bundle / "bundle.json").read_text())["files"]
    there = [path for path in project.bundle.rglob("*") if path.is_file() and path.name != "bundle.json"]
    assert files == {
        str(path.relative_to(project.bundle)): hashlib.sha256(path.read_bytes()).hexdigest() for path in there
    }


def test_what_a_bundle_has_is_not_signed_unseen(project: Project, tmp_path: Path) -> None:
    """What somebody put into the folder since is written again, or the signature would be for it."""
    shutil.copytree(project.bundle, tmp_path / "b")
    bundle = Bundle(tmp_path / "b")
    name = Path(bundle.path("tiny.gguf")).name[33:]
    forge(bundle, name, b"trojan", lambda text: re.sub("^CA: .*\n", "", text, flags=re.MULTILINE))
    secret, public = key(tmp_path)
    done = aikit_nix("bundle", "b", "--key", secret, "--flake", project.folder / "flake", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (bundle.folder / bundle.narinfo(name)).read_text() != ""
    done = fresh.aikit_nix(tmp_path / "nix", "unbundle", bundle.folder, "--public-key", public, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
