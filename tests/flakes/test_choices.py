"""What was chosen for a flake is kept to, until something else is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aikit_nix.aikitfile.escapes import Escapes
from aikit_nix.base.errors import AikitError
from aikit_nix.flakes import choices
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.plan import Engine, Options, Packages
from support.command import aikit_nix

ALL = Choices(
    packages="nixpkgs",
    engine="llama-server",
    runtime="cuda",
    name="reg/x",
    tag="1.0",
    cuda_capabilities=("8.6", "9.0"),
    escapes="shell",
    drop_settings=True,
    nixpkgs="a" * 40,
    input="github:me/aikit-nix",
    debian_lock=True,
)


def tree(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def put(folder: Path, content: str) -> None:
    (folder / "aikit").mkdir(exist_ok=True)
    (folder / choices.FILE).write_text(content)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    assert choices.read(tmp_path) == Choices()
    for chosen in (Choices(), Choices(packages="debian", debian_lock=False), ALL):
        put(tmp_path, chosen.to_json())
        assert choices.read(tmp_path) == chosen
    assert json.loads(Choices(cuda_capabilities=()).to_json()) == {}


def test_they_become_the_plans_options() -> None:
    assert Choices().options() == Options()
    assert Choices().read_as is Escapes.AUTO
    assert ALL.options().packages is Packages.NIXPKGS
    assert ALL.options().engine is Engine.LLAMA_SERVER
    assert ALL.options().cuda_capabilities == ("8.6", "9.0")
    assert ALL.read_as is Escapes.SHELL


def test_as_words_they_are_what_a_user_types() -> None:
    assert Choices(packages="debian", debian_lock=True).words() == ["--packages", "debian"]
    assert ALL.words()[10:14] == ["--cuda-capability", "8.6", "--cuda-capability", "9.0"]


def test_what_is_chosen_wins_and_the_rest_stays() -> None:
    merged = Choices(runtime="avx", cuda_capabilities=("7.5",)).over(ALL)
    assert (merged.runtime, merged.cuda_capabilities, merged.tag) == ("avx", ("7.5",), "1.0")


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (ALL, "debian", False),
        (ALL, "nixpkgs", True),
        (Choices(engine="localai", nixpkgs="b" * 40), "nixpkgs", True),  # what nothing said is nixpkgs
        (Choices(packages="debian", debian_lock=True), "nixpkgs", False),
    ],
)
def test_what_only_fits_the_earlier_packages_goes_with_them(before: Choices, now: str, kept: bool) -> None:
    merged = Choices(packages=now).over(before)
    for name in ("engine", "nixpkgs", "debian_lock", "cuda_capabilities"):
        assert getattr(merged, name) == (getattr(before, name) if kept else None)
    assert (merged.runtime, merged.tag) == (before.runtime, before.tag)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '"x"',
        '{"colour": "red"}',
        '{"runtime": "sse"}',
        '{"engine": ["localai"]}',
        '{"escapes": "always"}',
        '{"packages": []}',
        '{"name": 5}',
        '{"tag": {"a": "b"}}',
        '{"nixpkgs": 7}',
        '{"input": false}',
        '{"debian_lock": "no"}',
        '{"cuda_capabilities": "8.6"}',
        '{"cuda_capabilities": [8.6]}',
        "[" * 100_000,
        '{"name": "\\ud800"}' + " " * (1 << 20),
    ],
)
def test_a_file_of_others_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    put(tmp_path, content)
    with pytest.raises(AikitError) as refused:
        choices.read(tmp_path)
    assert str(tmp_path / choices.FILE) in str(refused.value)
    assert refused.value.diagnostics[0].code in ("choices", "too-large")


@pytest.mark.usefixtures("nix")
def test_what_was_chosen_is_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    (tmp_path / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]\n")
    first = aikit_nix("gen", "--packages", "debian", "--runtime", "avx2", "--tag", "1.0", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    before = tree(tmp_path)
    second = aikit_nix("gen", cwd=tmp_path)
    assert "as chosen before: --packages debian --runtime avx2 --tag 1.0" in second.stdout
    assert tree(tmp_path) == before
    third = aikit_nix("gen", "--runtime", "avx", cwd=tmp_path)
    assert "as chosen before: --packages debian --tag 1.0" in third.stdout
    assert json.loads((tmp_path / "flake/aikit/choices.json").read_bytes())["runtime"] == "avx"
    fourth = aikit_nix("gen", "--forget", "--packages", "debian", cwd=tmp_path)
    assert "as chosen before" not in fourth.stdout
    assert json.loads((tmp_path / "flake/aikit/choices.json").read_bytes()) == {"packages": "debian"}
    (tmp_path / "flake/aikit/choices.json").write_text("[]")
    broken = aikit_nix("gen", cwd=tmp_path)
    assert (broken.returncode, "choices.json holds no choices" in broken.stderr) == (1, True)
