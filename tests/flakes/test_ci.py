"""`aikit-nix ci`: the vendors' schemas, and every step run by hand, each job on a machine of its own.

What is not run: the vendors' own runners, their actions and caches, `apt-get` and `pipx`, cosign.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import debian_lock, file_server, fresh, registry, tiny_gguf
from support.command import aikit_nix, on_path

SCHEMAS = {
    "github": ["--builtin-schema", "vendor.github-workflows"],
    "gitlab": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
INSTALL = "git+https://git.example.com/aikit-nix@0123456789abcdef"


@pytest.fixture(scope="module")
def origin(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with a committed lock and flake, whose model is on a server, as is a Debian mirror that has all it needs."""
    folder = tmp_path_factory.mktemp("ci") / "origin"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, file_server.serve() as server:
        if lock := debian_lock.usable(folder.parent, print):
            patch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
        server.files["/tiny.gguf"] = tiny_gguf.make(folder.parent / "tiny.gguf").read_bytes()
        (folder / "aikitfile.yaml").write_text(
            f"apiVersion: v1alpha1\nmodels:\n  - name: tiny\n    source: {server.url}/tiny.gguf\n"
        )
        git(folder, "init", "-q")
        for command in (
            ["lock"],
            ["gen", "--packages", "debian", "--flake", "flake"],
            ["fetch", "--flake", "flake"],
            ["ci", "github", "--flake", "flake", "--install", INSTALL, "-o", ".github/workflows/image.yml"],
            ["ci", "gitlab", "--flake", "flake", "--install", INSTALL, "-o", ".gitlab-ci.yml"],
        ):
            done = aikit_nix(*command, cwd=folder)
            assert done.returncode == 0, done.stderr
        git(folder, "add", "-A")
        git(folder, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "all")
        for name, value in debian_lock.mirror_of_store(server).items():
            patch.setenv(name, value)
        yield folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def pipeline(origin: Path, vendor: str) -> tuple[Path, dict[str, Any]]:
    file = origin / {"github": ".github/workflows/image.yml", "gitlab": ".gitlab-ci.yml"}[vendor]
    read: dict[str, Any] = yaml.safe_load(file.read_text())
    return file, read


@pytest.mark.parametrize("vendor", SCHEMAS)
def test_it_is_what_the_vendor_reads(origin: Path, vendor: str, tmp_path: Path) -> None:
    file, _ = pipeline(origin, vendor)
    argv = [sys.executable, "-m", "check_jsonschema", *SCHEMAS[vendor]]
    done = subprocess.run([*argv, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    spoiled = tmp_path / "spoiled.yml"
    spoiled.write_text(file.read_text().replace("needs:", "neds:").replace("stage:", "stage: 1 #"))
    assert subprocess.run([*argv, str(spoiled)], capture_output=True, check=False).returncode == 1


def test_actions_are_pinned_by_commit(origin: Path) -> None:
    _, content = pipeline(origin, "github")
    used = [step["uses"] for job in content["jobs"].values() for step in job["steps"] if "uses" in step]
    assert len(used) > 8
    assert [each for each in used if not re.fullmatch(r"[a-z]+/[a-z-]+@[0-9a-f]{40}", each)] == []


def test_both_vendors_run_the_same(origin: Path) -> None:
    _, github = pipeline(origin, "github")
    _, gitlab = pipeline(origin, "gitlab")
    install = gitlab["default"]["before_script"]
    for name, job in github["jobs"].items():
        ours = [step["run"] for step in job["steps"] if "run" in step]
        theirs = [*install, *gitlab[name]["script"]]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert other.endswith(one)
            done = subprocess.run(["bash", "-n"], input=other, text=True, capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


def test_every_week_the_pins_are_renewed(origin: Path) -> None:
    _, github = pipeline(origin, "github")
    _, gitlab = pipeline(origin, "gitlab")
    # YAML 1.1 reads the key `on` as true.
    (triggers,) = (value for key, value in github.items() if str(key) == "True")
    assert triggers["schedule"] == [{"cron": "23 4 * * 1"}]
    assert github["jobs"]["renew"]["if"] == "github.event_name == 'schedule'"
    assert gitlab["renew"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    said = "\n".join(gitlab["renew"]["script"])
    order = [
        "aikit-nix debian-lock -o",
        "aikit-nix gen --lock",
        "nix build --offline",
        "grype oci-dir:result",
        "git push",
    ]
    assert sorted(order, key=said.index) == order


class Runner:
    """A machine that runs a job's steps by hand: an empty store, a clone of the repository, what other jobs left it."""

    def __init__(self, origin: Path, folder: Path, content: dict[str, Any], **secrets: str) -> None:
        folder.mkdir()
        git(folder, "clone", "-q", str(origin), "work")
        self.work, self.folder, self.secrets = folder / "work", folder, secrets
        self.env = {name: str(value) for name, value in content["env"].items()} | on_path(folder / "bin")

    def run(self, job: dict[str, Any]) -> str:
        """All that was said. Each step is a process of its own, as the vendor's are."""
        said = ""
        for number, step in enumerate(job["steps"]):
            if "run" not in step or step["name"] == "Install":
                continue
            script = self.folder / f"{number}.sh"
            script.write_text(step["run"])
            env = {**self.env, **dict.fromkeys(step.get("env", {}), ""), **self.secrets}
            command = ["bash", "-euo", "pipefail", str(script)]
            done = fresh.run(self.folder / "nix", *command, cwd=self.work, network=True, env=env)
            assert done.returncode == 0, f"{step['name']}:\n{done.stdout}{done.stderr}"
            said += done.stdout + done.stderr
        return said


def test_each_step_runs_by_hand(origin: Path, tmp_path: Path) -> None:
    if problem := fresh.problem() or registry.missing():
        pytest.skip(problem)
    _, content = pipeline(origin, "github")
    jobs = content["jobs"]

    first = Runner(origin, tmp_path / "first", content)
    said = first.run(jobs["build"])
    assert "1 model in the Nix store, 1 of them new" in said
    assert "nothing differs" in said

    second = Runner(origin, tmp_path / "second", content)
    shutil.copytree(first.work / "bundle", second.work / "bundle")  # the cache
    shutil.copy(first.work / "statement.json", second.work)  # the artifact
    said = second.run(jobs["reproduce"])
    assert "1 model in the Nix store, 0 of them new" in said
    assert "the same image as statement.json's" in said

    (tmp_path / "registry").mkdir()
    with registry.serve(tmp_path / "registry") as there:
        third = Runner(origin, tmp_path / "third", content, IMAGE=f"{there.address}/Team/tiny:avx", REGISTRY_USER="me")
        shutil.copytree(first.work / "bundle", third.work / "bundle")
        nar = next((third.work / "bundle/nar").iterdir())
        nar.write_bytes(nar.read_bytes()[:-1])  # a cache that is damaged is left, not trusted
        said = third.run(jobs["publish"])
        assert "is damaged" in said
        assert "nothing differs" in said
        assert "avx" in there.tags("team/tiny")


def test_a_lock_that_is_behind_stops_it(origin: Path, tmp_path: Path) -> None:
    if problem := fresh.problem():
        pytest.skip(problem)
    _, content = pipeline(origin, "github")
    runner = Runner(origin, tmp_path / "runner", content)
    with (runner.work / "aikitfile.yaml").open("a") as file:
        file.write("  - name: more\n    source: https://example.com/more.gguf\n")
    with pytest.raises(AssertionError, match="more"):
        runner.run(content["jobs"]["build"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--install", "x; curl"], "--install x; curl: a pipeline takes letters"),
        (["--install", "${{ secrets.TOKEN }}"], "a pipeline takes letters"),
        (["--install", "-x"], "begins with a letter, a digit, . or /"),
        (["--install", "x", "--lock", "../aikit.lock"], "aikit.lock"),
    ],
)
def test_what_is_more_than_text_is_refused(origin: Path, options: list[str], message: str) -> None:
    done = aikit_nix("ci", "github", "--flake", "flake", *options, cwd=origin)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_wheel_beside_the_aikitfile_can_be_named(origin: Path) -> None:
    done = aikit_nix("ci", "github", "--flake", "flake", "--install", "./aikit_nix.whl", cwd=origin)
    assert '  AIKIT_NIX: "./aikit_nix.whl"\n' in done.stdout, done.stderr
