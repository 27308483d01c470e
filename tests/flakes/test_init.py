"""`aikit-nix init` as a user runs it, with a stand-in for Hugging Face on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import gguf
import pytest

from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base import targets
from aikit_nix.flakes import init as initialiser
from aikit_nix.models.project import read
from support import tiny_gguf
from support.command import aikit_nix
from support.file_server import FileServer
from support.hugging_face import HuggingFace

pytestmark = pytest.mark.usefixtures("hub")


@pytest.fixture
def model(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()


def init(folder: Path, *args: str | Path) -> CompletedProcess[str]:
    return aikit_nix("init", *args, cwd=folder)


def written(folder: Path) -> Aikitfile:
    project = read(folder / "aikitfile.yaml")
    assert not project.findings, [str(finding) for finding in project.findings]
    return project.aikitfile


def locked(folder: Path) -> list[str]:
    """The sha256 of every file in the lock."""
    models = json.loads((folder / "aikit.lock").read_text())["models"]
    return [file["sha256"] for model in models for file in model["files"]]


def serve_repository(hub: HuggingFace, model: bytes, *paths: str) -> str:
    """A repository with these files, and a README; gives their SHA-256."""
    hub.repository().commit({**dict.fromkeys(paths, model), "README.md": b"x"})
    return hashlib.sha256(model).hexdigest()


def test_a_local_file(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    done = init(tmp_path, "--model", "m.gguf", "--runtime", "avx2")
    assert done.returncode == 0, done.stderr
    parsed = written(tmp_path)
    assert (parsed.models[0].name.value, parsed.models[0].source.value.text) == ("tiny", "m.gguf")
    assert parsed.runtime is not None
    assert parsed.runtime.value == "avx2"
    assert parsed.config is not None
    assert "context_size: 4096" in parsed.config.value
    assert "use_tokenizer_template: true" in parsed.config.value
    assert "max_tokens" not in parsed.config.value
    checked = aikit_nix("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_choice_of_packages_is_kept_for_the_first_gen(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    assert "[default: debian]" in aikit_nix("init", "--help", cwd=tmp_path).stdout
    assert "next: aikit-nix build\n" in init(tmp_path, "--model", "m.gguf").stdout
    done = aikit_nix("gen", "--elsewhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "as chosen before: --packages debian (--forget drops that)\n" in done.stdout
    assert "llama-server of debian" in done.stdout
    # A flake that is there keeps its own
    done = init(tmp_path, "--model", "m.gguf", "--force", "--packages", "nixpkgs")
    assert "next: aikit-nix build --packages nixpkgs\n" in done.stdout
    assert "--packages debian" in aikit_nix("gen", "--elsewhere", cwd=tmp_path).stdout


def test_a_base_model_goes_on_with_the_text_to_an_end_that_init_sets(tmp_path: Path) -> None:
    """It has no chat template, and does not learn where an answer ends."""
    tiny_gguf.make(tmp_path / "m.gguf", chat_template=None)
    done = init(tmp_path, "--model", "m.gguf")
    assert done.returncode == 0, done.stderr
    parsed = written(tmp_path)
    assert [each.template.value for each in parsed.models[0].prompt_templates] == ["{{.Input}}"]
    assert parsed.config is not None
    assert "    max_tokens: 256 #" in parsed.config.value
    explained = aikit_nix("explain", "--engine", "llama-server", cwd=tmp_path)
    assert "--predict 256" in explained.stdout


def test_it_asks_on_a_terminal(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    leader, follower = pty.openpty()
    os.write(leader, b"m.gguf\navx512\ndebian\n")
    argv = [sys.executable, "-m", "aikit_nix.cli", "init"]
    done = subprocess.run(argv, cwd=tmp_path, stdin=follower, capture_output=True, text=True, check=False)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0, done.stderr
    parsed = written(tmp_path)
    assert parsed.runtime is not None
    assert parsed.runtime.value == "avx512"
    assert "next: aikit-nix build\n" in done.stdout


def test_where_no_runtime_is_known_to_run_none_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"Model": "m.gguf", "Programs": "debian"}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda text, **_: answers[text.split()[0]])
    monkeypatch.setattr(targets, "best_runtime", lambda: None)
    assert initialiser.ask(None, None) == (("m.gguf",), None, "debian")
    assert initialiser.ask("cuda", None) == (("m.gguf",), "cuda", "debian")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    (tmp_path / "aikitfile.yaml").write_text("mine")
    done = init(tmp_path, "--model", "m.gguf")
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert (tmp_path / "aikitfile.yaml").read_text() == "mine"
    assert init(tmp_path, "--model", "m.gguf", "--force").returncode == 0


def test_a_repository(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    sha256 = serve_repository(hub, model, "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf")
    done = init(tmp_path, "--model", "ns/repo")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path).models[0]
    assert found.source.value.text == "https://huggingface.co/ns/repo/resolve/main/m-Q4_K_M.gguf"
    assert found.sha256 is None
    assert locked(tmp_path) == [sha256]
    assert aikit_nix("lock", "--check", cwd=tmp_path).returncode == 0


def companion(folder: Path, name: str, architecture: str, kind: str) -> Path:
    writer = gguf.GGUFWriter(folder / name, architecture)
    writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder / name


def test_a_repositorys_projector_comes_with_its_model(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    eye = companion(tmp_path, "eye.gguf", "clip", "mmproj").read_bytes()
    names = {"m-Q4_K_M.gguf": model, "mmproj-Q8_0.gguf": eye, "mmproj-BF16.gguf": eye, "mmproj-F16.gguf": eye}
    hub.repository("ns/repo").commit(names)
    done = init(tmp_path, "--model", "ns/repo")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path)
    assert [model.source.value.text.rpartition("/")[2] for model in found.models] == [
        "m-Q4_K_M.gguf",
        "mmproj-F16.gguf",
    ]
    assert found.config
    assert "\n  mmproj: mmproj-F16.gguf\n" in found.config.value
    assert aikit_nix("check", "--packages", "debian", cwd=tmp_path).stdout == "aikitfile.yaml: no mistakes found\n"


def test_an_adapter_is_named_in_its_models_config(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    companion(tmp_path, "l.gguf", "llama", "adapter")
    (tmp_path / "m.gguf").write_bytes(model)
    assert "give that one model, too" in init(tmp_path, "--model", "l.gguf").stderr
    assert init(tmp_path, "--model", "m.gguf", "--model", "l.gguf").returncode == 0
    found = written(tmp_path).config
    assert found
    assert found.value.endswith("\n  lora_adapter: l.gguf\n  lora_base: m.gguf\n")


def test_a_file_of_a_repository_by_pattern_and_by_url(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    serve_repository(hub, model, "m-Q4_K_M.gguf", "m-Q8_0.gguf")
    for named in ("ns/repo:Q8_0", "https://huggingface.co/ns/repo/blob/main/m-Q8_0.gguf?download=true"):
        assert init(tmp_path, "--model", named, "--force").returncode == 0
        assert written(tmp_path).models[0].source.value.text.endswith("ns/repo/resolve/main/m-Q8_0.gguf")


def test_each_name_that_is_proposed_can_be_chosen(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    serve_repository(hub, model, "m-Q5.gguf", "m-Q8.gguf", *(f"Q6/m-0000{n}-of-00002.gguf" for n in (1, 2)))
    said = init(tmp_path, "--model", "ns/repo").stderr
    names = said.partition("PATTERN (")[2].partition(")")[0].split(", ")
    assert sorted(names) == ["Q6/m-00001-of-00002.gguf", "m-Q5.gguf", "m-Q8.gguf"]
    for name in names:
        done = init(tmp_path, "--model", f"ns/repo:{name}", "--force")
        assert done.returncode == 0, done.stderr
        assert written(tmp_path).models[0].source.value.text.endswith(f"ns/repo/resolve/main/{name}")
    assert init(tmp_path, "--model", "https://huggingface.co/ns/repo/tree/main/Q6", "--force").returncode == 0
    assert len(written(tmp_path).models) == 2


def test_all_parts_of_a_sharded_model(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    serve_repository(hub, model, *(f"q4_k_m/m-q4_k_m-0000{n}-of-00003.gguf" for n in (1, 2, 3)))
    assert init(tmp_path, "--model", "ns/repo").returncode == 0
    parsed = written(tmp_path)
    assert [model.path[-20:] for model in parsed.models] == [f"-0000{n}-of-00003.gguf"[-20:] for n in (1, 2, 3)]
    assert parsed.config is not None
    assert "model: m-q4_k_m-00001-of-00003.gguf" in parsed.config.value


def test_any_other_url_is_downloaded_once_into_the_store(
    tmp_path: Path, model: bytes, files: FileServer, nix: None, hub: HuggingFace
) -> None:
    model += os.urandom(8)
    files.files["/m.gguf"] = model
    url = f"{files.url}/m.gguf"
    sha256 = hashlib.sha256(model).hexdigest()
    assert init(tmp_path, "--model", url).returncode == 0
    assert written(tmp_path).models[0].sha256 is None
    assert locked(tmp_path) == [sha256]
    assert init(tmp_path, "--model", url).returncode == 1
    before = len(files.requests)
    assert init(tmp_path, "--model", url, "--sha256", sha256, "--force").returncode == 0
    assert all("range" in request.headers for request in files.requests[before:])
    found = written(tmp_path).models[0].sha256
    assert found is not None
    assert found.value == sha256


@pytest.mark.parametrize("named", ["ns/repo", "https://huggingface.co/ns/repo/resolve/main/m-Q4_K_M.gguf", "m.gguf"])
def test_a_sha256_that_is_given_is_never_forgotten(tmp_path: Path, model: bytes, hub: HuggingFace, named: str) -> None:
    (tmp_path / "m.gguf").write_bytes(model)
    sha256 = serve_repository(hub, model, "m-Q4_K_M.gguf")
    done = init(tmp_path, "--model", named, "--sha256", "0" * 64)
    assert (done.returncode, "sha256" in done.stderr) == (1, True)
    assert not (tmp_path / "aikitfile.yaml").exists()
    assert init(tmp_path, "--model", named, "--sha256", sha256).returncode == 0
    assert f'sha256: "{sha256}"' in (tmp_path / "aikitfile.yaml").read_text()


def test_what_is_for_one_model_or_file_is_refused_for_several(tmp_path: Path, model: bytes) -> None:
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf"):
        (tmp_path / name).write_bytes(model)
    several = ("--model", "a-00001-of-00002.gguf", "--model", "b.gguf")
    for args in ((*several, "--name", "x"), (*several, "--sha256", "0" * 64), (*several[:2], "--sha256", "0" * 64)):
        done = init(tmp_path, *args)
        assert (done.returncode, "one" in done.stderr) == (1, True), done.stderr


def test_whichever_part_is_named_the_first_one_says_what_the_model_is(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(model)
    tiny_gguf.make(tmp_path / "m-00002-of-00002.gguf", chat_template=None, context=1)
    assert init(tmp_path, "--model", "m-00002-of-00002.gguf").returncode == 0
    config = written(tmp_path).config
    assert config is not None
    assert "use_tokenizer_template: true" in config.value
    assert "context_size: 4096" in config.value


def test_a_name_may_hold_what_is_not_printable(tmp_path: Path, model: bytes) -> None:
    name = "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} a\N{NO-BREAK SPACE}b"
    (tmp_path / f"{name}.gguf").write_bytes(model)
    assert init(tmp_path, "--model", f"{name}.gguf", "--name", name).returncode == 0
    assert written(tmp_path).models[0].name.value == name


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--model", "nothing.gguf"], "is not there"),
        (["--model", "bad.gguf"], "bad.gguf is no GGUF: it is a ZIP archive"),
        (["--model", "cut.gguf"], "ends within its header"),
        (["--model", "../outside.gguf"], "outside"),
        (["--model", "none-00001-of-00000.gguf"], "claims to have 0 parts"),
        (["--model", "two..gguf"], "must stay below /models: LocalAI takes no path with `..`"),
        (["--model", "ns/none"], "is not there"),
        (["--model", "ns/gated"], "it is gated, private or not there: set HF_TOKEN"),
        (["--model", "ns/repo"], "several match"),
        (["--model", "ns/repo:Q2"], "none matches"),
        (["--model", "oci://x/y"], "names no registry"),
        (["--model", "https://user:pw@h.example/m.gguf"], "user name"),
        (["--model", "http://127.0.0.1:1/m.gguf", "--sha256", "1" * 64], "cannot be read"),
        (["--model", "x.gguf", "--sha256", "zz"], "64 lower-case hex"),
        ([], "no model"),
    ],
)
def test_what_cannot_be_had(tmp_path: Path, model: bytes, hub: HuggingFace, args: list[str], says: str) -> None:
    (tmp_path / "outside.gguf").write_bytes(model)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "bad.gguf").write_bytes(b"PK\3\4" + bytes(100))
    (folder / "cut.gguf").write_bytes(model[:100])
    for name in ("none-00001-of-00000.gguf", "two..gguf"):
        (folder / name).write_bytes(model)
    serve_repository(hub, model, "a-Q4_K_M.gguf", "b-Q4_K_M.gguf")
    hub.repository("ns/gated", gated=True).commit({"m-Q4_K_M.gguf": model})
    done = init(folder, *args)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "aikitfile.yaml").exists()


def test_only_the_head_of_a_large_file_is_read(tmp_path: Path, model: bytes, hub: HuggingFace) -> None:
    serve_repository(hub, model + bytes(1 << 20), "m-Q4_K_M.gguf")
    assert init(tmp_path, "--model", "ns/repo").returncode == 0
    ranges = [request.headers.get("range") for request in hub.cdn_requests]
    assert ranges
    assert all(asked and asked.startswith("bytes=0-") for asked in ranges)
