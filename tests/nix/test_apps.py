"""A generated flake's apps: `nix run .#load`, `.#push`, `.#run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import flakes, registry
from support.command import aikit_nix
from support.image import unpack

AIKITFILE = "apiVersion: v1alpha1\nruntime: avx2\nmodels:\n  - {name: tiny, source: tiny.gguf}\n"

# Takes the place of docker or podman: says what it is asked, keeps what it is given.
ENGINE = """\
#!/bin/sh
echo "$0 $*" >> "$KEPT/calls"
case $1 in
  info) exit "$INFO" ;;
  image) cat "$KEPT/id" ;;
  load) cat > "$KEPT/image.tar" ;;
esac
"""


@dataclass(frozen=True)
class Flake:
    folder: Path

    def nix(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = ["nix", *arguments]
        return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)

    def app(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.nix("run", f"path:{self.folder}#{name}", "--", *arguments, **env)

    def build(self, output: str) -> Path:
        return flakes.build(self.folder, output)


@pytest.fixture(scope="module")
def flake(nix: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flake]:
    folder = tmp_path_factory.mktemp("apps")
    shutil.copy(tiny_model, folder / "tiny.gguf")
    (folder / "aikitfile.yaml").write_text(AIKITFILE)
    with pytest.MonkeyPatch.context() as patch:
        flakes.environment(folder, patch)
        done = aikit_nix("gen", "--packages", "debian", "--flake", "flake", cwd=folder)
        assert done.returncode == 0, done.stderr
        yield Flake(folder / "flake")


@dataclass(frozen=True)
class Engines:
    """Stand-ins for docker and podman, first on PATH."""

    folder: Path
    env: dict[str, str]

    def install(self, name: str, info: int) -> None:
        (self.folder / name).write_text(ENGINE.replace('"$INFO"', str(info)))
        (self.folder / name).chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return [line.removeprefix(f"{self.folder}/") for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    (tmp_path / "id").touch()
    # Without the machine's own: those two, and what nix run needs.
    found = Engines(tmp_path, {"KEPT": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    found.install("docker", 1)
    found.install("podman", 1)
    return found


def test_load_takes_the_engine_that_works(flake: Flake, engines: Engines) -> None:
    engines.install("podman", 0)
    done = flake.app("load", **engines.env)
    assert done.returncode == 0, done.stderr
    assert engines.calls == ["docker info", "podman info", "podman load"]
    assert unpack(engines.folder / "image.tar") == unpack(flake.build("archive"))


def test_load_takes_the_engine_that_is_named(flake: Flake, engines: Engines) -> None:
    engines.install("docker", 0)
    engines.install("podman", 0)
    assert flake.app("load", "podman", **engines.env).returncode == 0
    assert engines.calls == ["podman info", "podman load"]


def test_without_an_engine_load_says_so(flake: Flake, engines: Engines) -> None:
    done = flake.app("load", **engines.env)
    assert done.returncode == 1
    assert "no container engine: none of" in done.stderr


def test_run_loads_the_image_only_where_it_is_not_there(flake: Flake, engines: Engines) -> None:
    engines.install("podman", 0)
    assert flake.app("run", "--threads", "a b", **engines.env, PORT="1234").returncode == 0
    *_, inspected, loaded, ran = engines.calls
    assert inspected == "podman image inspect --format {{.Id}} tiny:avx2"
    assert loaded == "podman load"
    assert ran.startswith("podman run --rm --interactive --read-only")
    assert ran.endswith("--publish 1234:8080 tiny:avx2 --threads a b")

    for prefix in ("sha256:", ""):  # docker's way to write an ID, and podman's
        (engines.folder / "calls").unlink()
        (engines.folder / "id").write_text(prefix + unpack(flake.build("oci")).digest.removeprefix("sha256:") + "\n")
        assert flake.app("run", **engines.env).returncode == 0
        assert "podman load" not in engines.calls


def test_push_says_what_it_needs(flake: Flake, tmp_path: Path) -> None:
    done = flake.app("push")
    assert done.returncode == 2
    assert "usage: nix run FLAKE#push -- REGISTRY/NAME:TAG" in done.stderr
    (tmp_path / "nix").symlink_to(shutil.which("nix") or pytest.fail())
    done = flake.app("push", "registry/x:1", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "`skopeo` is missing" in done.stderr


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
@pytest.mark.parametrize("prefix", ["", "docker://"])
def test_a_registry_gets_the_manifest_that_was_known_before(flake: Flake, tmp_path: Path, prefix: str) -> None:
    if reason := registry.missing():
        pytest.skip(reason)
    (entry,) = json.loads((flake.build("manifest") / "index.json").read_text())["manifests"]
    with registry.serve(tmp_path) as server:
        done = flake.app("push", f"{prefix}{server.address}/a/tiny:1", "--dest-tls-verify=false")
        assert done.returncode == 0, done.stderr
        request = urllib.request.Request(f"http://{server.address}/v2/a/tiny/manifests/1", method="HEAD")
        request.add_header("Accept", entry["mediaType"])
        with urllib.request.urlopen(request) as response:
            assert response.headers["Docker-Content-Digest"] == entry["digest"]
