"""`aikit-nix gen` as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from support.command import aikit_nix

pytestmark = pytest.mark.usefixtures("nix")

SPEC_EXAMPLE = Path(__file__).parent / "fixtures/spec-example.yaml"
SHA256 = "1" * 64


def write(folder: Path, text: str) -> None:
    (folder / "aikitfile.yaml").write_text(textwrap.dedent(text).replace("SHA256", SHA256))


def model(name: str = "m", source: str = "https://example.com/m.gguf", more: str = "") -> str:
    return f'apiVersion: v1alpha1\n{more}\nmodels:\n  - {{name: "{name}", source: "{source}", sha256: "SHA256"}}\n'


def gen(folder: Path, *args: str | Path) -> dict[str, Any]:
    """The plan that gen writes."""
    done = aikit_nix("gen", "--elsewhere", "--forget", *args, "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads((folder / "out/aikit/plan.json").read_text())
    return plan


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_spec_pages_example_gives_aikits_bytes(tmp_path: Path) -> None:
    plan = gen(tmp_path, SPEC_EXAMPLE)
    texts = {file["path"]: file["text"].encode() for file in plan["files"]}
    facts = {path: (len(text), hashlib.sha256(text).hexdigest()) for path, text in texts.items()}
    # What AIKit v0.8.0 wrote.
    assert facts == {
        "/models/llama-2-7b-chat.tmpl": (
            214,
            "22b1748764bd5b95d9cddf3ebd73323d84d22e9e5c397cc082e2a81b7e464f13",
        ),
        "/config.yaml": (520, "f36eda671ef5def9ae18fa162579aa700f4cab93cca082d48d44a809b45281f6"),
    }
    assert (plan["entrypoint"], plan["cmd"]) == ([], [])
    assert plan["env"] == {"DEBUG": "true", "CONFIG_FILE": "/config.yaml"}
    assert [file["path"] for file in plan["models"]] == ["/models/llama-2-7b-chat.Q4_K_M.gguf"]
    assert plan["systems"]["x86_64-linux"]["default"] == "cuda"
    assert (plan["engine"], plan["packages"], plan["backends"]) == ("localai", "nixpkgs", ["stablediffusion"])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        gen(tmp_path / folder, SPEC_EXAMPLE)
    assert tree(tmp_path / "a/out") == tree(tmp_path / "b/out")


def test_it_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    write(tmp_path, model())
    done = aikit_nix("gen", "--packages", "debian", cwd=tmp_path)
    assert done.returncode == 0
    assert "wrote aikit, flake.nix" in done.stdout
    assert "image m, 1 model, llama-server of debian for avx on x86_64-linux" in done.stdout
    assert re.search(r"^cost: the first build downloads \d+ MB of Debian packages", done.stdout, re.MULTILINE)
    assert re.match(r"next: (AIKIT_DEBIAN_MIRROR=\S+ )?nix build", done.stdout.splitlines()[-1])
    done = aikit_nix("gen", "--packages", "nixpkgs", "--elsewhere", cwd=tmp_path)
    assert "wrote aikit, flake.lock, flake.nix" in done.stdout
    assert "image m, 1 model, localai of nixpkgs for avx on x86_64-linux, cpu on aarch64-linux" in done.stdout
    assert "`--packages debian` takes seconds" in done.stdout


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "a:b", "é", "a'b", "$(touch x)", "-a", "a&b=c", "a\\b"])
def test_the_command_that_comes_next_finds_the_flake(tmp_path: Path, name: str) -> None:
    write(tmp_path, model())
    for output in (f"./{name}", tmp_path / "c" / name):
        done = aikit_nix("gen", "--packages", "debian", "-o", output, cwd=tmp_path)
        command = done.stdout.splitlines()[-1].removeprefix("next: ").replace("nix build", "nix flake metadata")
        seen = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (seen.returncode, "Resolved URL" in seen.stdout) == (0, True), (command, seen.stderr)
    assert not (tmp_path / "x").exists()


def test_defaults_follow_the_packages(tmp_path: Path) -> None:
    write(tmp_path, model(more="runtime: avx2"))
    assert gen(tmp_path)["engine"] == "localai"
    plan = gen(tmp_path, "--packages", "debian", "--runtime", "avx512")
    assert plan["engine"] == "llama-server"
    assert plan["systems"] == {"x86_64-linux": {"default": "avx512", "runtimes": DEBIAN_X86}}


DEBIAN_X86 = ["cpu", "avx", "avx2", "avx512", "cuda", "vulkan", "rocm"]


@pytest.mark.parametrize("runtime", ["", "cuda", "vulkan", "rocm", "avx2"])
def test_debian_has_arm64_where_the_runtime_is_not_x86s(tmp_path: Path, runtime: str) -> None:
    write(tmp_path, model(more=f"runtime: '{runtime}'"))
    systems = gen(tmp_path, "--packages", "debian")["systems"]
    assert systems["x86_64-linux"] == {"default": runtime or "avx", "runtimes": DEBIAN_X86}
    arm = {"default": runtime or "cpu", "runtimes": ["cpu", "cuda", "vulkan"]}
    assert systems.get("aarch64-linux") == (None if runtime in ("rocm", "avx2") else arm)


@pytest.mark.parametrize("packages", ["debian", "nixpkgs"])
def test_nvidias_licence_is_named(tmp_path: Path, packages: str) -> None:
    write(tmp_path, model(more="runtime: cuda"))
    done = aikit_nix("gen", "--packages", packages, "--elsewhere", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: aikitfile.yaml:" in done.stderr
    assert "https://docs.nvidia.com/cuda/eula/" in done.stderr


def test_an_image_is_named_after_its_model(tmp_path: Path) -> None:
    write(tmp_path, model(name="Org/My Model_7B"))
    image = gen(tmp_path)["image"]
    assert (image["name"], image["tag"]) == ("org-my-model_7b", None)
    image = gen(tmp_path, "--name", "reg/x", "--tag", "1.0")["image"]
    assert (image["name"], image["tag"]) == ("reg/x", "1.0")
    assert json.loads(image["labels"]["aikit-nix.models"]) == {"/models/Org/m.gguf": f"sha256:{SHA256}"}


def test_more_models_than_layers_is_refused(tmp_path: Path) -> None:
    entries = [f'  - {{name: m{i}, source: "https://e.com/{i}.gguf", sha256: "{i:064x}"}}\n' for i in range(101)]
    write(tmp_path, "apiVersion: v1alpha1\nmodels:\n" + "".join(entries))
    done = aikit_nix("gen", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "101 models are more than an image has layers for: name at most 100" in done.stderr
    assert not (tmp_path / "out").exists()


def test_cuda_capabilities_and_models_to_load_are_kept(tmp_path: Path) -> None:
    write(tmp_path, model(more="runtime: cuda\nloadToMemory: [m]"))
    plan = gen(tmp_path, "--cuda-capability", "8.6", "--cuda-capability", "9.0")
    assert plan["cudaCapabilities"] == ["8.6", "9.0"]
    assert plan["env"] == {"LOCALAI_LOAD_TO_MEMORY": "m"}


def test_texts_travel_as_they_are(tmp_path: Path) -> None:
    nasty = "# ${builtins.readFile /etc/passwd}''${x}'' \" \\\\ `id` $(id) ' ü\n"
    write(tmp_path, model() + f"config: {json.dumps(nasty, ensure_ascii=False)}\n")
    plan = gen(tmp_path, "--escapes", "verbatim")
    assert plan["files"] == [{"path": "/config.yaml", "text": nasty}]
    assert "readFile /etc" not in (tmp_path / "out/flake.nix").read_text()


def test_a_local_model_is_pinned_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/x.gguf").write_bytes(b"weights")
    write(tmp_path, "apiVersion: v1alpha1\nmodels: [{name: x, source: w/x.gguf}]\n")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    (planned,) = gen(tmp_path)["models"]
    assert f"nix-store --add-fixed sha256 x.gguf\nIts sha256 must be {sha256}" in planned["fetch"]
    assert (planned["name"], planned["path"], planned["sha256"]) == ("x.gguf", "/models/x.gguf", sha256)
    assert (planned["url"], planned["size"]) == (None, 7)
    # header, padded content, two empty blocks, of the file in its folder (docs/model-layer.md)
    assert planned["layer"]["size"] == 512 + 512 + 512 + 1024


BAD = {
    "rocm on nixpkgs": (model(more="runtime: rocm"), [], "built from Debian's packages only: use `--packages debian`"),
    "vulkan on nixpkgs": (model(), ["--runtime", "vulkan"], "built from Debian's packages only"),
    "applesilicon": (model(more="runtime: applesilicon"), ["--packages", "debian"], "leave `runtime` out for arm64"),
    "localai on debian": (model(), ["--packages", "debian", "--engine", "localai"], "no LocalAI"),
    "exllama": (model(more="backends: [exllama]"), [], "LocalAI dropped it in v2.21"),
    "exllama2": (model(more="runtime: cuda\nbackends: [exllama2]"), [], "the last AIKit that has it is v0.20"),
    "exllama2 in llama-server": (
        model(more="backends: [exllama2]"),
        ["--engine", "llama-server"],
        "backend exllama2 cannot be built",
    ),
    "backend in llama-server": (
        model(more="backends: [stablediffusion]"),
        ["--engine", "llama-server"],
        "runs inside LocalAI",
    ),
    "unknown runtime": (model(more="runtime: sse"), [], "sse"),
    "unknown option": (model(), ["--runtime", "sse"], "one of 'avx', 'avx2', 'avx512', 'cuda'"),
    "unknown engine": (model(), ["--engine", "vllm"], "one of 'localai', 'llama-server'"),
    "unknown packages": (model(), ["--packages", "arch"], "is not one of"),
    "unknown flag": (model(), ["--frobnicate"], "No such option"),
    "bad image name": (model(), ["--name", "A B"], "--name"),
    "bad image tag": (model(), ["--tag", "a b"], "--tag"),
    "bad capability": (model(), ["--cuda-capability", "sm_86"], "--cuda-capability"),
    "bad nixpkgs": (model(), ["--nixpkgs", '";'], "--nixpkgs"),
    "no sha256": (
        "apiVersion: v1alpha1\nmodels: [{name: m, source: https://example.com/m.gguf}]",
        [],
        "aikit-nix lock",
    ),
    "short sha256": (model().replace("SHA256", "abc"), [], "sha256"),
    "local file missing": ("apiVersion: v1alpha1\nmodels: [{name: m, source: m.gguf}]", [], "m.gguf"),
    "escaping name": (model(name="../../x"), [], "/models"),
    "no yaml": ("a: [", [], "aikitfile.yaml:2:1"),
    "wrong type": ("apiVersion: v1alpha1\nmodels: 3", [], "models"),
    "other lock": (model(), ["--packages", "debian", "--debian-lock", "aikitfile.yaml"], "debian-lock"),
}


@pytest.mark.parametrize(("text", "args", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    tmp_path: Path, text: str, args: list[str], message: str
) -> None:
    write(tmp_path, text)
    done = aikit_nix("gen", *args, "-o", "out", cwd=tmp_path)
    assert done.returncode == (2 if args and ("one of" in message or "No such option" in message) else 1)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message.split("|")[-1] in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["aikitfile.yaml"]


def test_no_aikitfile_is_said_so(tmp_path: Path) -> None:
    done = aikit_nix("gen", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "aikitfile.yaml" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("sandbox = false\n", "etc/nix.conf: `sandbox = true`, which line 1 sets to false"),
        ("# x\nexperimental-features = nix-command flakes\nsandbox = false # Debian\n", "which line 3 sets to false"),
        ("build-use-sandbox = false\n", "`sandbox = true`, which line 1 sets to false"),
        ("include other.conf\n", "etc/nix.conf: `sandbox = true` "),
        ("sandbox = true\nsandbox = relaxed\n", ""),
        ("", ""),
    ],
)
def test_builds_outside_of_a_sandbox_are_warned_of(tmp_path: Path, settings: str, says: str) -> None:
    write(tmp_path, model())
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nix.conf").write_text(settings)
    (tmp_path / "etc/other.conf").write_text("\nsandbox = false\n")
    env = {**os.environ, "NIX_CONF_DIR": str(tmp_path / "etc"), "NIX_CONFIG": "", "XDG_CONFIG_HOME": str(tmp_path)}
    done = aikit_nix("gen", "--packages", "debian", "-o", "out", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "sandbox" in line]
    assert [says in line for line in warned] == ([True] if says else []), done.stderr
    extra = "--extra-experimental-features" in done.stdout
    assert extra == ("flakes" not in settings)


def test_nix_missing_or_too_old(tmp_path: Path) -> None:
    write(tmp_path, model())
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    env = {**os.environ, "PATH": str(bin_folder)}
    done = aikit_nix("gen", "-o", "out", cwd=tmp_path, env=env)
    assert (done.returncode, "nix-bin" in done.stderr) == (1, True)

    old = bin_folder / "nix"
    old.write_text("#!/bin/sh\necho 'nix (Nix) 2.3.7'\n")
    old.chmod(0o755)
    done = aikit_nix("gen", "--packages", "debian", "-o", "out", cwd=tmp_path, env=env)
    assert (done.returncode, "need Nix 2.8" in done.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
