"""What is read back from a flake's folder, whatever lies there."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.attest import provenance, sbom, sign
from aikit_nix.base import data
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import materials
from aikit_nix.flakes.plan import Packages
from aikit_nix.image import kubernetes, modelpack
from aikit_nix.models import lock
from support import recipes
from support.command import aikit_nix
from support.locks import done, write

FILES = {
    Packages.DEBIAN: ("aikit/plan.json", "aikit.lock", "aikit/packages/debian/lock.json"),
    Packages.NIXPKGS: ("aikit/plan.json", "aikit.lock", "aikit/pins.json", "flake.lock"),
}
JUNK: list[Any] = [None, 1, -1, "x", "", [], {}, [1], {"a": 1}, True, 1.5, "\0", "\ud800", "a" * 100, [[[]]]]


def spoiled(value: Any, chance: random.Random) -> Any:
    """The value with something in it replaced or left out."""
    value = current = copy.deepcopy(value)
    while True:
        key = chance.choice(list(current)) if isinstance(current, dict) else chance.randrange(len(current))
        if not (isinstance(current[key], dict | list) and current[key]) or chance.random() < 0.4:
            if isinstance(current, dict) and chance.random() < 0.2:
                del current[key]
            else:
                current[key] = chance.choice(JUNK)
            return value
        current = current[key]


@pytest.mark.parametrize("packages", list(Packages))
def test_whatever_is_read_ends_in_an_error_or_a_result(tmp_path: Path, packages: Packages) -> None:
    recipes.write(tmp_path, packages=packages)
    chance, refused = random.Random(1), 0
    for _ in range(300):
        file = tmp_path / chance.choice(FILES[packages])
        before = file.read_text()
        file.write_text(json.dumps(spoiled(json.loads(before), chance)))
        try:
            found = materials.read(tmp_path)
            with contextlib.suppress(AikitError):
                sbom.cyclonedx(found, found.system()).encode()
            with contextlib.suppress(AikitError):
                provenance.encode(provenance.predicate(found, found.system())).encode()
            with contextlib.suppress(AikitError):
                modelpack.make(found)
            kubernetes.manifests(found, None, None).encode()
            provenance.encode(sign.model_statement(found)).encode()
        except AikitError:
            refused += 1
        file.write_text(before)
    assert 20 < refused < 300


@pytest.mark.parametrize("packages", list(Packages))
def test_what_is_read_back_is_written_byte_for_byte(tmp_path: Path, packages: Packages) -> None:
    recipes.write(tmp_path, packages=packages)
    found = materials.read(tmp_path)
    assert found.plan.to_json() == (tmp_path / "aikit/plan.json").read_text()
    assert found.lock_file
    assert lock.parse(found.lock_file.read_bytes(), "l").to_json() == found.lock_file.read_text()
    if found.debian_lock:
        assert found.debian_lock.to_json() == (tmp_path / "aikit/packages/debian/lock.json").read_text()


@pytest.mark.parametrize(
    "spoil", ["{", "[]", '{"formatVersion": 1}', '{"formatVersion": 2}', "[" * 100_000], ids=range(5)
)
def test_what_is_no_plan_is_refused(tmp_path: Path, spoil: str) -> None:
    recipes.write(tmp_path)
    (tmp_path / "aikit/plan.json").write_text(spoil)
    with pytest.raises(AikitError, match="run `aikit-nix gen` again"):
        materials.read(tmp_path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    file = tmp_path / "aikit/plan.json"
    (model,) = json.loads(file.read_text())["models"]
    recipes.change(file, models=[model | {"size": float("inf")}])
    with pytest.raises(AikitError, match="run `aikit-nix gen` again"):
        materials.read(tmp_path)


def test_an_owner_that_is_none_is_no_address(tmp_path: Path) -> None:
    recipes.write(tmp_path, packages=Packages.NIXPKGS)
    file = tmp_path / "flake.lock"
    file.write_text(file.read_text().replace('"owner": "NixOS"', '"owner": "http://["'))
    found = materials.read(tmp_path)
    assert found.nixpkgs
    assert str(found.nixpkgs.purl).startswith("pkg:github/http%3A%2F%2F%5B/nixpkgs@")
    assert "nixpkgs" in sbom.cyclonedx(found, found.system())


def test_the_wheels_of_a_backend_are_among_the_sources(tmp_path: Path) -> None:
    """At their versions and hashes; a flake without the backend has none of them."""
    recipes.write(tmp_path, packages=Packages.NIXPKGS)
    assert len(materials.read(tmp_path).sources()) == 3
    wheels = data.NIX / "engines/localai/exllama2/wheels.json"
    (tmp_path / "aikit/engines/localai/exllama2").mkdir(parents=True, exist_ok=True)
    shutil.copy(wheels, tmp_path / "aikit/engines/localai/exllama2")
    found = {source.name: source for source in materials.read(tmp_path).sources()}
    assert found["torch"].purl == "pkg:pypi/torch@2.12.1"
    assert found["torch"].sha256 == "f4afc8083dff" + found["torch"].sha256[12:]
    assert len(found) == 3 + len(json.loads(wheels.read_text()))


def test_a_flake_whose_library_is_an_input_says_where_its_pins_are(tmp_path: Path) -> None:
    recipes.write(tmp_path)
    (tmp_path / "aikit/packages/debian/lock.json").unlink()
    with pytest.raises(AikitError, match="takes its Nix files from a flake input"):
        materials.read(tmp_path).debs("x86_64-linux")
    recipes.write(tmp_path / "nixpkgs", packages=Packages.NIXPKGS)
    (tmp_path / "nixpkgs/aikit/pins.json").unlink()
    with pytest.raises(AikitError, match="takes its Nix files from a flake input"):
        materials.read(tmp_path / "nixpkgs").sources()


def test_a_lock_that_pins_otherwise_than_the_flake_is_named(tmp_path: Path) -> None:
    content = recipes.write(tmp_path)
    assert materials.read(tmp_path).disagreements == ()
    lock = tmp_path / "aikit.lock"
    lock.write_text(lock.read_text().replace(recipes.sha256(content), "0" * 64))
    done = aikit_nix("verify", "--flake", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert f"aikit.lock has the sha256 {'0' * 64}, and the flake {recipes.sha256(content)}: run" in done.stderr


def test_the_lock_is_the_one_that_the_flake_was_made_from(tmp_path: Path, model: bytes) -> None:
    """No other that lies nearer: `lock --check` never saw that."""
    write(tmp_path, ("m", "m.gguf"))
    (tmp_path / "m.gguf").write_bytes(model)
    done(tmp_path, "lock")
    done(tmp_path, "gen", "--elsewhere", "--packages", "debian")
    (tmp_path / "flake/aikit.lock").write_text("no lock")
    assert materials.read(tmp_path / "flake").lock_file == tmp_path / "aikit.lock"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "aikitfile.yaml").rename(tmp_path / "elsewhere/aikitfile.yaml")
    (tmp_path / "aikitfile.yaml").symlink_to("elsewhere/aikitfile.yaml")
    done(tmp_path, "gen", "--elsewhere")
    assert materials.read(tmp_path / "flake").lock_file == tmp_path / "aikit.lock"
