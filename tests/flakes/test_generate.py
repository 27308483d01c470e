"""From an aikitfile to a flake that is written: what stands in it of where it came from, and what is said."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError, Diagnostic
from aikit_nix.flakes import generate
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.generate import Generated, Request
from support.command import aikit_nix
from support.flakes import PINNED

DEBIAN = Choices(packages="debian")
DEBIAN_AVX = Choices(packages="debian", runtime="avx")


@pytest.fixture
def aikitfile(tmp_path: Path) -> Path:
    file = tmp_path / "aikitfile.yaml"
    file.write_bytes(PINNED)
    return file


def write(aikitfile: Path, output: Path, chosen: Choices = DEBIAN, *, forget: bool = False) -> Generated:
    return generate.write(Request(aikitfile, output, chosen, forget=forget), elsewhere=True)


def sources(made: Generated) -> dict[str, str]:
    plan = json.loads((made.request.output / "aikit/plan.json").read_bytes())
    return {source["path"]: source["sha256"] for source in plan["sources"]}


def test_the_flake_names_what_it_was_made_from_where_that_is_near(aikitfile: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(PINNED).hexdigest()
    assert sources(write(aikitfile, tmp_path / "flake")) == {"../aikitfile.yaml": sha256}
    assert sources(write(aikitfile, tmp_path / "deep/flake")) == {"../../aikitfile.yaml": sha256}
    (tmp_path / "a").mkdir()
    aikitfile = aikitfile.rename(tmp_path / "a/aikitfile.yaml")
    assert sources(write(aikitfile, tmp_path / "b/flake")) == {}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert sources(write(aikitfile, tmp_path / "c/flake")) == {"../../a/aikitfile.yaml": sha256}


def test_a_flake_is_current_until_what_it_was_made_from_changes(aikitfile: Path, tmp_path: Path) -> None:
    assert not generate.made_from(tmp_path / "flake", aikitfile)
    write(aikitfile, tmp_path / "flake")
    assert generate.made_from(tmp_path / "flake", aikitfile)
    assert not generate.made_from(tmp_path / "flake", tmp_path / "flake/flake.nix")
    aikitfile.write_bytes(PINNED + b"debug: true\n")
    assert not generate.made_from(tmp_path / "flake", aikitfile)


@pytest.mark.parametrize("plan", ["", "[]", "{}", '{"sources": 1}', '{"sources": "x"}', "[" * 100_000])
def test_of_a_plan_that_is_none_no_flake_is_current(aikitfile: Path, tmp_path: Path, plan: str) -> None:
    write(aikitfile, tmp_path / "flake")
    (tmp_path / "flake/aikit/plan.json").write_text(plan)
    assert not generate.made_from(tmp_path / "flake", aikitfile)


def test_everything_found_is_told_and_nothing_written_where_something_is_wrong(aikitfile: Path, tmp_path: Path) -> None:
    said: list[Diagnostic] = []
    aikitfile.write_bytes(PINNED + b"colour: red\nbackends: [exllama]\n")
    with pytest.raises(AikitError, match="exllama"):
        generate.write(Request(aikitfile, tmp_path / "out", DEBIAN), elsewhere=True, report=said.extend)
    assert [finding.code for finding in said] == ["unknown-key"]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_built_is_said_before_models_are_read(tmp_path: Path) -> None:
    many = "".join(f"  - {{name: m{number}, source: absent{number}.gguf}}\n" for number in range(101))
    (tmp_path / "aikitfile.yaml").write_text(f"apiVersion: v1alpha1\nmodels:\n{many}")
    with pytest.raises(AikitError) as refused:
        write(tmp_path / "aikitfile.yaml", tmp_path / "flake")
    assert [each.code for each in refused.value.diagnostics] == ["combination"]


def test_what_is_kept_of_earlier_choices_is_what_is_still_in_use(aikitfile: Path, tmp_path: Path) -> None:
    assert not any(
        write(aikitfile, tmp_path / "flake", Choices(nixpkgs="a" * 40, tag="1", runtime="avx2")).kept.words()
    )
    made = write(aikitfile, tmp_path / "flake", DEBIAN_AVX)
    assert made.kept == Choices(tag="1")
    assert made.choices == Choices(packages="debian", runtime="avx", tag="1")
    assert write(aikitfile, tmp_path / "flake", Choices(tag="1")).kept == DEBIAN_AVX  # what is said anew is not kept
    assert write(aikitfile, tmp_path / "flake", DEBIAN, forget=True).choices == DEBIAN


def test_the_lines_say_what_is_left_to_do(aikitfile: Path, tmp_path: Path) -> None:
    lines = list(write(aikitfile, tmp_path / "flake", Choices(nixpkgs="a" * 40, tag="1")).lines())
    assert not [line for line in lines if line.startswith(("next: ", "as chosen before"))]
    assert f"{'a' * 40} is not pinned yet" in lines[-1]
    (tmp_path / "flake/flake.nix").write_text("{ }" + (tmp_path / "flake/flake.nix").read_text())
    lines = list(write(aikitfile, tmp_path / "flake", DEBIAN).lines())
    assert (
        lines[0]
        == f"left {tmp_path}/flake/flake.nix as it is: it was edited (--force writes it anew and keeps yours as flake.nix~)"
    )
    assert lines[1] == "as chosen before: --tag 1 (--forget drops that)"
    assert lines[-1].startswith("cost: the first build downloads ")


def test_a_lock_of_debian_packages_has_one_owner(aikitfile: Path, tmp_path: Path) -> None:
    lock = Path(generate.__file__).parents[3] / "nix/packages/debian/lock.json"
    made = generate.write(Request(aikitfile, tmp_path / "flake", DEBIAN, debian_lock=lock), elsewhere=True)
    assert made.choices.debian_lock
    assert (tmp_path / "flake/aikit/packages/debian/lock.json").is_file()
    assert write(aikitfile, tmp_path / "flake").choices.debian_lock  # the flake's own stays
    with pytest.raises(AikitError, match="--input takes the Debian packages' lock from that flake"):
        write(aikitfile, tmp_path / "flake", Choices(input="github:me/aikit-nix"))


@pytest.mark.usefixtures("nix")
def test_a_flake_that_is_behind_its_aikitfile_says_so(aikitfile: Path, tmp_path: Path) -> None:
    """Our commands everywhere; `nix build ./flake` where Nix sees the aikitfile, too: in a git repository that has both."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert aikit_nix("gen", "--packages", "debian", cwd=tmp_path).returncode == 0
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)

    def evaluate() -> subprocess.CompletedProcess[str]:
        argv = ["nix", "eval", "--raw", "./flake#default.drvPath"]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert evaluate().returncode == 0
    with aikitfile.open("a") as file:
        file.write("debug: true\n")
    behind = evaluate()
    assert behind.returncode == 1
    assert "aikitfile.yaml has changed since this flake was written: run `aikit-nix gen`" in behind.stderr
    for command in (["push", "localhost:1/a:1"], ["bundle", "b"], ["inspect"], ["reproduce"]):
        done = aikit_nix(*command, cwd=tmp_path)
        assert done.returncode == 1
        assert "aikitfile.yaml has changed since this flake was written: run `aikit-nix gen`" in done.stderr, command
    assert aikit_nix("gen", cwd=tmp_path).returncode == 0
    assert evaluate().returncode == 0


@pytest.mark.parametrize("where", [".", "models"])
def test_what_would_be_copied_with_the_flake_is_refused(tmp_path: Path, where: str) -> None:
    """All of the flake's folder goes into the world-readable store, at each build."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.gguf").write_bytes(b"weights")
    aikitfile = tmp_path / "aikitfile.yaml"
    aikitfile.write_text("apiVersion: v1alpha1\nmodels: [{name: m, source: models/m.gguf}]\n")
    with pytest.raises(AikitError, match=r"lies in the flake's folder .* name a folder of the flake's own"):
        write(aikitfile, tmp_path / where)
    assert not (tmp_path / where / "aikit").exists()


def test_where_nix_is_too_old_for_nixpkgs_gen_says_so_before_it_writes(aikitfile: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nix").write_text("#!/bin/sh\necho 'nix (Nix) 2.8.0'\n")
    (tmp_path / "bin/nix").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = aikit_nix("gen", cwd=tmp_path, env=env)
    assert (done.returncode, "need Nix 2.18" in done.stderr, "--packages debian" in done.stderr) == (1, True, True)
    assert not (tmp_path / "flake").exists()
    assert aikit_nix("gen", "--elsewhere", cwd=tmp_path, env=env).returncode == 0


def test_a_name_that_the_plan_cannot_hold_is_refused(aikitfile: Path, tmp_path: Path) -> None:
    odd = aikitfile.rename(tmp_path / "caf\udce9.yaml")
    with pytest.raises(AikitError, match="is no UTF-8"):
        write(odd, tmp_path)
    assert not (tmp_path / "flake").exists()
    write(odd, tmp_path.parent / f"{tmp_path.name}-elsewhere")
