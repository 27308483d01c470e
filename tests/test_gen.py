"""`aikit-nix gen` as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Callable
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
    done = aikit_nix("gen", "--elsewhere", "--forget", *args, "--flake", "out", cwd=folder)
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
    assert re.match(r"next: (aikit-nix fetch && )?nix build .*path:flake$", done.stdout.splitlines()[-1])
    done = aikit_nix("gen", "--elsewhere", cwd=tmp_path)
    assert re.search(r"^cost: the first build downloads \d+ MB of Debian packages", done.stdout, re.MULTILINE)
    done = aikit_nix("gen", "--packages", "nixpkgs", "--elsewhere", cwd=tmp_path)
    assert "wrote aikit, flake.lock, flake.nix" in done.stdout
    assert "image m, 1 model, localai of nixpkgs for avx on x86_64-linux, cpu on aarch64-linux" in done.stdout
    assert "`--packages debian` takes seconds" in done.stdout


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
    # heads, padded content, two empty blocks (docs/model-layer.md)
    assert planned["layer"]["size"] == 4096 + 512 + 1024


BAD = {
    "rocm on nixpkgs": (model(more="runtime: rocm"), [], "built from Debian's packages only: use `--packages debian`"),
    "unknown runtime": (model(more="runtime: sse"), [], "sse"),
    "unknown option": (model(), ["--runtime", "sse"], "one of 'avx', 'avx2', 'avx512', 'cuda'"),
    "unknown engine": (model(), ["--engine", "vllm"], "one of 'localai', 'llama-server'"),
    "unknown packages": (model(), ["--packages", "arch"], "is not one of"),
    "unknown flag": (model(), ["--frobnicate"], "No such option"),
    "bad image name": (model(), ["--name", "A B"], "--name"),
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
    done = aikit_nix("gen", *args, "--flake", "out", cwd=tmp_path)
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


def test_builds_outside_of_a_sandbox_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path, model())
    (tmp_path / "nix.conf").write_text("sandbox = false\nbuild-users-group =\n")
    env = {**os.environ, "NIX_CONF_DIR": str(tmp_path), "NIX_CONFIG": "", "XDG_CONFIG_HOME": str(tmp_path)}
    done = aikit_nix("gen", "--packages", "debian", "--flake", "out", cwd=tmp_path, env=env)
    assert (done.returncode, "Nix builds without its sandbox here" in done.stderr) == (0, True), done.stderr


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A flake on Debian's packages, as it was committed."""
    write(tmp_path, model())
    done = aikit_nix("gen", "--elsewhere", "--packages", "debian", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "flake"


def checked(flake: Path, *options: str | Path) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "AIKIT_DEBIAN_LOCK"}
    before = tree(flake)
    done = aikit_nix("gen", "--check", *options, cwd=flake.parent, env=environment)
    assert tree(flake) == before
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_flake_that_is_as_written_passes_the_check(written: Path) -> None:
    assert checked(written) == (
        0,
        f"chosen: --packages debian\n{written} is what aikitfile, lock and these choices give\n",
    )
    (written / "aikit/__pycache__").mkdir()
    (written / "aikit/__pycache__/x.pyc").write_bytes(b"")
    assert checked(written)[0] == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("flake.nix", lambda text: text + b"\n"),
        ("flake.nix", lambda text: text.replace(b"outputs =", b"outputs = # evil\n")),
        ("aikit/packages/debian/lock.json", lambda text: text.replace(b"a", b"b", 1)),
        ("aikit/plan.json", lambda text: text.replace(SHA256.encode(), b"2" * 64)),
        ("aikit/default.nix", lambda text: b" " + text),
        ("aikit/seals.json", lambda _: b"{}"),
        ("aikit/evil.nix", lambda _: b"{}"),
        ("aikit/choices.json", lambda text: text + b" "),
    ],
)
def test_a_pull_request_that_edits_the_flake_is_refused(
    written: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    """With seals of its own, too: they are in the folder, and say nothing to who writes it."""
    file = written / name
    file.write_bytes(change(file.read_bytes() if file.exists() else b""))
    status, said = checked(written)
    assert (status, f"error: flake/{name}" in said) == (1, True)


def test_a_link_and_a_file_that_is_gone_are_named(written: Path, tmp_path: Path) -> None:
    (written / "flake.nix").rename(tmp_path / "flake.nix")
    assert "flake/flake.nix is not there" in checked(written)[1]
    (written / "flake.nix").symlink_to(tmp_path / "flake.nix")
    assert checked(written)[0] == 1


def test_other_pins_of_debians_packages_count_where_they_are_named(written: Path, tmp_path: Path) -> None:
    """A pull request may write them with `gen`, so that flake, choices and seals agree."""
    lock = json.loads((written / "aikit/packages/debian/lock.json").read_text())
    lock["snapshot"] = "20200101T000000Z"
    (tmp_path / "other.json").write_text(json.dumps(lock))
    other: list[str | Path] = ["--debian-lock", tmp_path / "other.json"]
    done = aikit_nix("gen", "--elsewhere", *other, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status, said = checked(written)
    assert status == 1
    assert "flake/aikit/choices.json is not what aikitfile, lock and choices give" in said
    assert "--debian-lock names them" in said
    assert checked(written, *other)[0] == 0


def test_a_changed_aikitfile_and_another_nixpkgs_are_named(tmp_path: Path) -> None:
    write(tmp_path, model())
    assert aikit_nix("gen", "--elsewhere", cwd=tmp_path).returncode == 0
    flake = tmp_path / "flake"
    lock = flake / "flake.lock"
    assert checked(flake)[0] == 0
    lock.write_text(re.sub(r"716c7a[0-9a-f]*", "1" * 40, lock.read_text()))  # `nix flake update`
    status, said = checked(flake)
    assert status == 0
    assert f"flake.lock has nixpkgs at {'1' * 40}, sha256-" in said
    lock.write_text(lock.read_text().replace("NixOS", "evil"))
    assert "flake.lock takes nixpkgs from elsewhere" in checked(flake)[1]
    write(tmp_path, model("other"))
    assert "flake/aikit/plan.json is not what aikitfile, lock and choices give" in checked(flake)[1]


def test_an_input_that_the_lock_takes_from_elsewhere_is_named(tmp_path: Path) -> None:
    """Nix takes what a flake.lock says is locked for an input, wherever that is."""
    write(tmp_path, model())
    chosen = ("--nixpkgs", "github:NixOS/nixpkgs/nixos-unstable")
    assert aikit_nix("gen", "--elsewhere", *chosen, cwd=tmp_path).returncode == 0
    lock = tmp_path / "flake/flake.lock"
    original = {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "ref": "nixos-unstable"}
    for locked, status in (
        (original | {"rev": "1" * 40}, 0),
        (original | {"owner": "evil"}, 1),
        ({"type": "tarball", "url": "https://evil.example/x.tar.gz"}, 1),
    ):
        nodes = {"nixpkgs": {"original": original, "locked": locked}, "root": {"inputs": {"nixpkgs": "nixpkgs"}}}
        lock.write_text(json.dumps({"nodes": nodes, "root": "root", "version": 7}))
        assert checked(tmp_path / "flake")[0] == status, locked
    assert "flake.lock takes nixpkgs from elsewhere than it says itself" in checked(tmp_path / "flake")[1]
    lock.write_text("{")
    assert "flake.lock takes nixpkgs from elsewhere than flake.nix says" in checked(tmp_path / "flake")[1]


def test_what_lies_in_the_flake_beside_its_files_is_named(written: Path) -> None:
    (written / "aikit/link").symlink_to("/etc")
    (written / "aikit/x__pycache__.nix").write_text("1")
    said = checked(written)[1]
    for name in ("link", "x__pycache__.nix"):
        assert f"flake/aikit/{name}: aikitfile and lock give no such file" in said
