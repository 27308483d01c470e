"""What builds an image of Debian's files: its programs are fetched from mirrors, its functions are those of nixpkgs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest

from aikit_nix.debian import mirror as debian_mirror
from support.debian_set import DebianSet
from support.file_server import FileServer


def test_a_machine_without_a_seed_leaves_the_work_to_x86(debian_set: DebianSet) -> None:
    expression = (
        f'(import {debian_set.folder} {{ system = "x86_64-linux"; runtime = "avx2"; buildSystem = "aarch64-darwin"; }})'
        ".engine.root.system"
    )
    done = subprocess.run(["nix-instantiate", "--eval", "-E", expression], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "x86_64-linux"


def relock(debian_set: DebianSet, name: str, content: bytes, filename: str) -> None:
    """Pin another file for a package."""
    lock = json.loads(debian_set.lock.read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    lock["architectures"]["amd64"]["packages"][name] |= {"filename": filename, "sha256": sha256, "size": len(content)}
    debian_set.lock.write_text(json.dumps(lock))


@pytest.mark.usefixtures("nix")
@pytest.mark.parametrize(
    ("mirror", "start"),
    [
        ("", "http://snapshot.debian.org/archive/debian/SNAPSHOT/pool/main/"),
        (" http://a.example/debian  http://b.example/debian", "http://a.example/debian/pool/main/"),
    ],
)
def test_a_package_comes_from_the_archive_or_the_mirror_that_is_named(
    debian_set: DebianSet, mirror: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(debian_mirror.MIRROR, mirror)
    snapshot = json.loads(debian_set.lock.read_text())["snapshot"]
    for url in debian_set.value("map (deb: deb.url) set.engine.root.debs"):
        assert url.startswith(start.replace("SNAPSHOT", snapshot))


def test_a_mirror_with_a_password_is_refused(debian_set: DebianSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(debian_mirror.MIRROR, "http://me:s3cret@a.example/debian")
    done = debian_set.try_build("set.engine.root")
    assert done.returncode != 0
    assert "AIKIT_DEBIAN_MIRROR has a user or a password" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_wrong_hash_is_an_error(debian_set: DebianSet, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    relock(debian_set, "libggml0", os.urandom(16), "pool/main/g/x_1.deb")
    files.files["/pool/main/g/x_1.deb"] = b"something else"
    monkeypatch.setenv(debian_mirror.MIRROR, files.url)
    done = debian_set.try_build("set.engine.root")
    assert done.returncode != 0
    assert "hash mismatch" in done.stderr
    assert "x_1.deb" in done.stderr


def test_names_that_a_store_path_cannot_hold_are_fetched(
    debian_set: DebianSet, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(64)
    name = "pool/main/g/x_1%3a2~rc1+b1_amd64.deb"
    relock(debian_set, "libggml0", content, name)
    files.files["/pool/main/g/x_1:2~rc1+b1_amd64.deb"] = content
    monkeypatch.setenv(debian_mirror.MIRROR, files.url)
    done = debian_set.try_build("set.engine.package")
    assert done.returncode != 0  # the content is no package
    assert files.count("/pool/main/g/x_1:2~rc1+b1_amd64.deb") == 1


def test_a_command_stops_at_its_first_error(debian_set: DebianSet) -> None:
    assert debian_set.run("false; touch $out").returncode != 0
    assert debian_set.run("false | true; touch $out").returncode != 0
    assert debian_set.run("touch $out").returncode == 0


def test_a_command_has_its_inputs_on_the_path(debian_set: DebianSet) -> None:
    script = "python3 -c \"import sys; open(sys.argv[1], 'w').write(sys.executable)\" $out"
    assert debian_set.run(script).returncode != 0
    assert debian_set.run(script, nativeBuildInputs="[ pkgs.python3 ]").returncode == 0


def test_a_text_may_be_long_and_hold_anything(debian_set: DebianSet) -> None:
    text = "'\"$x`id`\\\n\t${y}ü" * 20_000
    (debian_set.folder / "text").write_text(text)
    expression = f'pkgs.writeText "text" (builtins.readFile {debian_set.folder}/text)'
    assert debian_set.build(expression).read_text() == text


def test_a_script_is_one(debian_set: DebianSet) -> None:
    script = debian_set.build("pkgs.writeShellScript \"say\" ''set -eu; echo \"$1: 'x' \\$\"''")
    done = subprocess.run([script, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b: 'x' $\n"
