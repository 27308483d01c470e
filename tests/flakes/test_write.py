"""The files of a flake, and what cannot enter them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import plan
from aikit_nix.flakes import write as flake
from aikit_nix.flakes.choices import Choices
from support.command import aikit_nix
from support.flakes import PINNED


def planned(packages: plan.Packages = plan.Packages.DEBIAN, aikitfile: bytes = PINNED) -> plan.Plan:
    return plan.make(parse(aikitfile, "aikitfile.yaml")[0], plan.Options(packages=packages))[0]


def test_only_nixpkgs_has_an_input_and_a_lock() -> None:
    debian = flake.render(planned(), Choices())
    nixpkgs = flake.render(planned(plan.Packages.NIXPKGS), Choices())
    assert debian.lock is None
    assert b"inputs" not in debian.content["flake.nix"]
    assert nixpkgs.lock is not None
    pinned = json.loads(nixpkgs.lock)["nodes"]["nixpkgs"]
    # a branch there and a revision here: `nix flake update` moves it
    assert f'"github:NixOS/nixpkgs/{pinned["original"]["ref"]}"'.encode() in nixpkgs.content["flake.nix"]
    assert re.fullmatch("[0-9a-f]{40}", pinned["locked"]["rev"])


def test_the_flake_is_short() -> None:
    for packages in plan.Packages:
        files = flake.render(planned(packages), Choices())
        assert files.content["flake.nix"].count(b"\n") < 50
        assert {path.split("/")[0] for path in files.content} == {"aikit", "flake.nix"}


def test_another_nixpkgs_is_left_to_nix_to_lock() -> None:
    for reference, url in [
        ("a" * 40, "github:NixOS/nixpkgs/" + "a" * 40),
        ("path:/srv/nixpkgs", "path:/srv/nixpkgs"),
    ]:
        files = flake.render(planned(plan.Packages.NIXPKGS), Choices(nixpkgs=reference))
        assert f'url = "{url}";'.encode() in files.content["flake.nix"]
        assert files.lock is None


def test_the_thin_form_takes_the_library_from_an_input() -> None:
    files = flake.render(planned(plan.Packages.NIXPKGS), Choices(input="github:me/aikit-nix"))
    assert set(files.content) == {"flake.nix", "aikit/plan.json", "aikit/choices.json", "aikit/seals.json"}
    assert b'aikit-nix.url = "github:me/aikit-nix";' in files.content["flake.nix"]
    assert b"aikit-nix.lib.fromPlan {" in files.content["flake.nix"]


@pytest.mark.parametrize("reference", ["master", '"; x = "', "path:/a b", "path:/${x}", "github:a/b\n", "\ud800"])
def test_a_reference_that_is_none_cannot_become_nix_code(reference: str) -> None:
    with pytest.raises(AikitError, match="--nixpkgs"):
        flake.render(planned(plan.Packages.NIXPKGS), Choices(nixpkgs=reference))
    with pytest.raises(AikitError, match="--input"):
        flake.render(planned(), Choices(input=reference))
    with pytest.raises(AikitError, match="--nixpkgs"):  # which stands in choices.json
        flake.render(planned(plan.Packages.DEBIAN), Choices(nixpkgs=reference))


@pytest.mark.parametrize(
    "reference",
    [
        "git+https://user:hunter2@h/x",
        "git+https://hunter2@h/x",
        "git+https://h/x?access_token=hunter2",
        "https://h/x.tar.gz?sig=hunter2",
    ],
)
def test_a_secret_does_not_enter_the_flake(reference: str) -> None:
    for packages in plan.Packages:
        with pytest.raises(AikitError, match="access-tokens") as raised:
            flake.render(planned(packages), Choices(nixpkgs=reference))
        assert "hunter2" not in str(raised.value)


def test_a_formatter_breaks_no_seal() -> None:
    files = flake.render(planned(), Choices())
    seals = json.loads(files.content["aikit/seals.json"])
    text = files.content["flake.nix"]
    assert flake.is_sealed("flake.nix", text.replace(b"\n", b"\n\n  "), seals)
    assert not flake.is_sealed("flake.nix", text + b"x", seals)


@pytest.mark.usefixtures("nix")
def test_the_thin_form_is_the_same_image(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("this is no git repository, which the flake input names")
    drvs = []
    for name, more in (("own", []), ("thin", ["--input", f"git+file://{root}"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "aikitfile.yaml").write_bytes(PINNED)
        done = aikit_nix("gen", "--packages", "debian", *more, cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        argv = ["nix", "eval", "--raw", f"path:{tmp_path / name}/flake#default.drvPath"]
        drvs.append(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert {path.name for path in (tmp_path / "thin/flake/aikit").iterdir()} == {
        "plan.json",
        "choices.json",
        "seals.json",
    }
    assert drvs[0] == drvs[1]
