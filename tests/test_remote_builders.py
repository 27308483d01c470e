"""More than one machine, with nothing but Nix: the set-ups of docs/hermetic.md over ssh on loopback.

Builder and runner are namespaces with stores of their own; what goes over the wire is counted.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aikit_nix.image import layout
from support import debian_lock, docs, fresh, ssh
from support.command import aikit_nix

MODEL = 24_000_000  # bytes, which do not compress
BUILDER = "ssh-ng://root@127.0.0.1"


@dataclass(frozen=True)
class Setup:
    """A flake, the image that was built of it here, the bundle, and a builder that has unpacked it."""

    folder: Path
    image: Path
    builder: ssh.Machine

    def run(self, machine: Path, *command: str, cwd: Path) -> str:
        """Run a program on a runner, whose /nix is `machine`."""
        done = fresh.run(
            machine, *command, cwd=cwd, network=True, env={"AIKIT_DEBIAN_MIRROR": "", **self.builder.environment}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def build(self, machine: Path, example: str, *, cwd: Path, output: str = "") -> Path:
        """The store path that an example of the docs makes for the flake."""
        command = shlex.split(example.replace("root@builder", "root@127.0.0.1"))
        at = next(index for index, word in enumerate(command) if word.startswith("path:"))
        command[at] = f"path:{self.folder}/flake{output}"
        said = self.run(machine, *command, "--no-link", "--json", "--option", "substitute", "false", cwd=cwd)
        return Path(json.loads(said)[0]["outputs"]["out"])


EVAL_STORE, COPY, MAY_NOT_BUILD, MODELS_HERE = docs.blocks("hermetic.md", "More than one machine")


@pytest.fixture(scope="module")
def setup(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    if problem := ssh.problem():
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("remote")
    (folder / "m.gguf").write_bytes(tiny_model.read_bytes() + os.urandom(MODEL))
    (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - name: m\n    source: m.gguf\n")
    with pytest.MonkeyPatch.context() as patch:
        if lock := debian_lock.usable(folder, print):
            patch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
        for command in (
            ["lock"],
            ["gen", "--packages", "debian", "--flake", "flake"],
            ["bundle", "b", "--flake", "flake"],
        ):
            done = aikit_nix(*command, cwd=folder)
            assert done.returncode == 0, done.stderr
        built = subprocess.run(
            ["nix", "build", f"path:{folder}/flake", "--no-link", "--json"], capture_output=True, check=True
        )
        done = fresh.aikit_nix(folder / "builder", "unbundle", "b", cwd=folder)
        assert done.returncode == 0, done.stderr
        with ssh.serve(folder / "ssh", folder / "builder") as builder:
            yield Setup(folder, Path(json.loads(built.stdout)[0]["outputs"]["out"]), builder)


def manifest(machine: Path, path: Path) -> bytes:
    """What names all that an image is."""
    return (machine / path.relative_to("/nix") / "index.json").read_bytes()


def names(machine: Path) -> set[str]:
    """What a store has, by name, derivations aside."""
    return {path.name[33:] for path in (machine / "store").iterdir() if path.suffix != ".drv"}


def test_all_on_the_builder(setup: Setup, tmp_path: Path) -> None:
    """The runner has neither models nor tools; it evaluates, and fetches what it asked for."""
    runner = tmp_path / "nix"
    setup.builder.count()
    built = setup.build(runner, EVAL_STORE.replace("--no-link", ""), cwd=tmp_path)
    assert setup.builder.sent < 1_500_000  # derivations and the flake's own files
    assert setup.builder.received < 200_000
    assert "m.gguf" not in names(runner)

    setup.builder.count()
    copy = COPY.replace("root@builder", "root@127.0.0.1").replace("/nix/store/…-llama-oci", str(built))
    setup.run(runner, *shlex.split(copy), cwd=tmp_path)
    assert manifest(runner, built) == (setup.image / "index.json").read_bytes()
    assert setup.builder.received < 1.1 * layout.read_layout(setup.image).size
    assert "m.gguf" not in names(runner)


@pytest.mark.parametrize("protocol", ["ssh-ng", "ssh"])
def test_a_runner_that_may_not_build(setup: Setup, tmp_path: Path, protocol: str) -> None:
    """`max-jobs = 0`: Nix brings every step's result here, the model too, and sends none of them back."""
    runner = tmp_path / "nix"
    setup.builder.count()
    built = setup.build(runner, MAY_NOT_BUILD.replace("ssh-ng:", f"{protocol}:"), cwd=tmp_path)
    assert manifest(runner, built) == (setup.image / "index.json").read_bytes()
    assert setup.builder.sent < 2_500_000
    assert "m.gguf" in names(runner)


def test_a_model_stays_where_it_is(setup: Setup, tmp_path: Path) -> None:
    """The runner has the model, and a builder without it builds what needs none: the rest is done where the model is."""
    runner, other = tmp_path / "nix", tmp_path / "other"
    done = fresh.aikit_nix(runner, "unbundle", setup.folder / "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with ssh.serve(tmp_path / "ssh", other) as builder:
        here = Setup(setup.folder, setup.image, builder)
        made = here.build(runner, MAY_NOT_BUILD, cwd=tmp_path, output="#manifest")
        debs = sum(path.stat().st_size for path in (runner / "store").glob("*.deb"))
        assert builder.sent < debs + 2_500_000
        assert "m.gguf" not in names(other)
        assert made.name[33:] in names(other)

        builder.count()
        built = here.build(runner, MODELS_HERE, cwd=tmp_path)
        assert manifest(runner, built) == (setup.image / "index.json").read_bytes()
        assert builder.sent == 0
        assert "m.gguf" not in names(other)


def test_a_shared_cache_over_ssh(setup: Setup, tmp_path: Path) -> None:
    """What a bundle holds may lie in another machine's store; what that has already is not sent again."""
    other = tmp_path / "other"
    with ssh.serve(tmp_path / "ssh", other) as shared:
        for most in (40_000_000 + MODEL, 200_000):
            shared.count()
            done = aikit_nix(
                "bundle",
                "b",
                "--flake",
                "flake",
                "--to",
                BUILDER,
                cwd=setup.folder,
                env={**os.environ, **shared.environment},
            )
            assert done.returncode == 0, done.stderr
            assert shared.sent < most
        assert "m.gguf" in names(other)
