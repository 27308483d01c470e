"""LocalAI compiled from source by real nixpkgs in the sandbox, and the image that comes of it, started and asked.

A first run compiles for about half an hour on two cores: it needs AIKIT_SOURCES or a way to GitHub.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.aikitfile.parser import parse
from aikit_nix.aikitfile.types import Pin
from aikit_nix.base import data
from aikit_nix.engines import localai as engine
from aikit_nix.engines.memory import MIB
from aikit_nix.sources import judge
from nixpkgs.toolchain import Nixpkgs
from support import container, shaped_gguf, tiny_gguf, tiny_picture
from support.command import aikit_nix
from support.container import ContainerError
from support.image import Image, unpack
from support.shaped_gguf import Shape

# The spec page's example, escapes included, with a model that exists.
AIKITFILE = r"""apiVersion: v1alpha1
debug: true
runtime: avx2
backends:
  - stablediffusion
models:
  - name: llama-2-7b-chat
    source: tiny.gguf
    promptTemplates:
      - name: "llama-2-7b-chat"
        template: |
          {{if eq .RoleName \"assistant\"}}{{.Content}}{{else}}
          [INST]
          {{if .SystemPrompt}}{{.SystemPrompt}}{{else if eq .RoleName \"system\"}}<<SYS>>{{.Content}}<</SYS>>

          {{else if .Content}}{{.Content}}{{end}}
          [/INST]
          {{end}}
  - name: picture
    source: picture.safetensors
config: |
  - name: \"llama-2-7b-chat\"
    backend: \"llama\"
    parameters:
      top_k: 80
      temperature: 0.2
      top_p: 0.7
      model: \"tiny.gguf\"
    context_size: 512
    roles:
      function: 'Function Result:'
      assistant_function_call: 'Function Call:'
      assistant: 'Assistant:'
      user: 'User:'
      system: 'System:'
    template:
      chat_message: \"llama-2-7b-chat\"
    system_prompt: \"You are a helpful assistant\"
  - name: plain
    backend: llama
    parameters:
      model: tiny.gguf
    context_size: 512
    template:
      chat_message: llama-2-7b-chat
  - name: picture
    backend: stablediffusion
    parameters:
      model: picture.safetensors
    step: 2
  - name: no picture
    backend: stablediffusion
    parameters:
      model: tiny.gguf
  - name: missing
    backend: llama
    parameters:
      model: missing.gguf
"""
MEGABYTE = 1_000_000
PINS = json.loads((data.NIX / "pins.json").read_text())
VERSION = PINS["localai"]["tag"].removeprefix("v")


@dataclass(frozen=True)
class Built:
    """What `nix build` made of a generated flake, unpacked."""

    image: Image
    root: Path


@pytest.fixture(scope="module")
def built(localai_nixpkgs: Nixpkgs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with build(localai_nixpkgs, tmp_path_factory.mktemp("image"), AIKITFILE) as image:
        yield image


@contextmanager
def build(nixpkgs: Nixpkgs, folder: Path, aikitfile: str, runtime: str | None = None) -> Iterator[Built]:
    """The image of an aikitfile with tiny models beside it; `runtime` takes the place of the plan's own."""
    tiny_gguf.make(folder / "tiny.gguf")
    tiny_picture.make(folder / tiny_picture.FILE)
    (folder / "aikitfile.yaml").write_text(aikitfile)
    done = aikit_nix("gen", "--flake", "flake", cwd=folder, env={**os.environ, **nixpkgs.env})
    assert done.returncode == 0, done.stderr
    if runtime:
        plan = json.loads((folder / "flake/aikit/plan.json").read_text())
        plan["systems"] = {"x86_64-linux": {"default": runtime, "runtimes": [runtime]}}
        (folder / "flake/aikit/plan.json").write_text(json.dumps(plan))
    archive = nixpkgs.build(folder / "flake", "default")
    yield Built(unpack(archive, folder / "root"), folder / "root")
    # The image's folders are read-only.
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


@pytest.fixture(scope="module")
def running(bubblewrap: None, built: Built) -> Iterator[container.Container]:
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    with container.start(built.image, built.root) as started:
        yield started


def test_the_image_holds_what_runs_and_nothing_that_builds(built: Built) -> None:
    paths = {path.split("-", 1)[1] for layer in built.image.layers for path in layer.store_paths}
    assert paths == {
        "aikit-nix",
        "debian-libraries",
        "host-cacert",
        f"localai-{VERSION}",
        f"localai-{VERSION}-backends",
        "localai-backends",
        f"localai-llama-cpp-avx2-{PINS['llama-cpp']['rev'][:7]}",
        f"localai-stablediffusion-avx2-{PINS['stablediffusion']['rev'][:7]}",
    }


def test_it_is_small(built: Built) -> None:
    """Without models, and without the optional backend, an image is to stay below 250 MB."""
    optional = (f"stablediffusion-avx2-{PINS['stablediffusion']['rev'][:7]}", f"{VERSION}-backends")
    _, _, *base = built.image.layers
    needed = (layer for layer in base if not any(path.endswith(optional) for path in layer.store_paths))
    assert sum(layer.size for layer in needed) < 250 * MEGABYTE


def test_what_the_image_says_about_running_it(built: Built) -> None:
    assert built.image.run["Entrypoint"] == ["local-ai"]
    assert not built.image.run.get("Cmd")
    assert "DEBUG=true" in built.image.run["Env"]
    assert built.image.run["User"] == "65532:65532"
    assert "CONFIG_FILE=/config.yaml" in built.image.run["Env"]


def test_it_lists_the_models_of_the_config(running: container.Container) -> None:
    listed = {model["id"] for model in running.ask("/v1/models")["data"]}
    assert {"llama-2-7b-chat", "plain", "picture", "no picture", "missing"} <= listed


PROMPTS = {
    # The spec page's template prints the system prompt in place of every message, where there is one.
    "llama-2-7b-chat": r"\n[INST]\nYou are a helpful assistant\n[/INST]\n\n",
    "plain": r"\n[INST]\nWhat is Nix?\n[/INST]\n\n",
}


@pytest.mark.parametrize(("model", "prompt"), PROMPTS.items())
def test_it_answers_and_the_prompt_follows_the_template(running: container.Container, model: str, prompt: str) -> None:
    before = len(running.log())
    assert running.chat("What is Nix?", model=model) == tiny_gguf.SENTENCE
    log = re.sub(r"\x1b\[[0-9;]*m", "", running.log()[before:])
    assert re.findall(r'Prompt \(after templating\) prompt="(.*?)" ', log) == [prompt]


def test_it_streams(running: container.Container) -> None:
    body = b'{"model": "llama-2-7b-chat", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    request = urllib.request.Request(running.url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        lines = response.read().decode().splitlines()
    assert lines.count("data: [DONE]") == 1
    assert sum(line.startswith("data: {") for line in lines) > 3


def test_the_web_interface_is_there(running: container.Container) -> None:
    with urllib.request.urlopen(running.url + "/app", timeout=60) as response:
        page = response.read().decode()
    assert 'id="root"' in page
    (script,) = re.findall(r'<script type="module"[^>]* src="([^"]+)"', page)
    with urllib.request.urlopen(running.url + "/" + script.lstrip("./"), timeout=60) as response:
        assert len(response.read()) > 100_000


def paint(running: container.Container, model: str) -> bytes:
    body = {"model": model, "prompt": "a cat", "size": "64x64", "response_format": "b64_json"}
    return base64.b64decode(running.ask("/v1/images/generations", body)["data"][0]["b64_json"])


def test_it_paints_a_picture(running: container.Container) -> None:
    assert tiny_picture.colours(paint(running, "picture")) == ((64, 64), {tiny_picture.COLOUR})


def test_stablediffusion_refuses_what_is_no_image_model(running: container.Container) -> None:
    with pytest.raises(ContainerError, match="could not load model"):
        paint(running, "no picture")


PLAIN = """\
apiVersion: v1alpha1
debug: true
runtime: {runtime}
models: [{{name: tiny, source: tiny.gguf}}]
config: "[{{name: tiny, backend: llama-cpp, parameters: {{model: tiny.gguf}}, context_size: 512}}]"
"""


@pytest.mark.parametrize("runtime", ["avx", "avx512"])
def test_the_other_runtimes_answer(bubblewrap: None, localai_nixpkgs: Nixpkgs, tmp_path: Path, runtime: str) -> None:
    if f" {'avx512f' if runtime == 'avx512' else runtime} " not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {runtime}")
    with (
        build(localai_nixpkgs, tmp_path, PLAIN.format(runtime=runtime)) as image,
        container.start(image.image, image.root) as started,
    ):
        assert started.chat("hello", model="tiny") == tiny_gguf.SENTENCE


def test_the_best_library_for_the_processor_is_loaded(
    bubblewrap: None, localai_nixpkgs: Nixpkgs, tmp_path: Path
) -> None:
    """As in an image for CUDA, less CUDA's library: on x86-64 no aikitfile makes an image like this."""
    with build(localai_nixpkgs, tmp_path, PLAIN.format(runtime="avx"), runtime="cpu") as image:
        libraries = {path.name for path in image.root.glob("nix/store/*-localai-llama-cpp-cpu-*/bin/libggml-cpu-*.so")}
        assert {f"libggml-cpu-{name}.so" for name in ("x64", "sandybridge", "haswell", "skylakex", "zen4")} < libraries
        with container.start(image.image, image.root) as started:
            assert started.chat("hello", model="tiny") == tiny_gguf.SENTENCE
            (loaded,) = re.findall(r"system_info: .* CPU : (.*)", started.log())
    processor = Path("/proc/cpuinfo").read_text()
    for name, flag in (("AVX", "avx"), ("AVX2", "avx2"), ("AVX512", "avx512f"), ("AVX512_BF16", "avx512_bf16")):
        assert (f"| {name} = 1 |" in f"| {loaded}") is (f" {flag} " in processor), name


def test_a_missing_model_file_is_reported(running: container.Container) -> None:
    with pytest.raises(ContainerError, match="could not load model"):
        running.chat("hello", model="missing")


def test_an_unknown_model_is_refused(running: container.Container) -> None:
    with pytest.raises(ContainerError, match=r"404.*not found"):
        running.chat("hello", model="nobody")


def test_it_asks_for_nothing_and_writes_below_tmp_only(running: container.Container) -> None:
    """The container has no network and a read-only root: whatever was wanted and refused is in the log."""
    refused = r"read-only file system|permission denied|no such host|dial tcp (?!127\.0\.0\.1:)|network is unreachable"
    assert not re.search(refused, running.log(), re.IGNORECASE)


def test_a_schema_that_refers_to_itself_ends_no_server(running: container.Container) -> None:
    """Before LocalAI 4.8 its grammar's converter followed the reference until the stack, and the process, was gone."""
    itself = {"$ref": "#/$defs/A"}
    schema = {"oneOf": [{"type": "object", "properties": {"a": itself}}], "$defs": {"A": itself}}
    assert running.chat("hello", model="plain", grammar_json_functions=schema) == tiny_gguf.SENTENCE
    assert "Failed generating grammar" in running.log()
    assert running.chat("hello", model="plain") == tiny_gguf.SENTENCE


# Before LocalAI 4.9 the first six were served without a key.
ASK_FOR_A_KEY = {
    "/mcp/chat/completions": True,
    "/mcp/v1/chat/completions": True,
    "/v1/mcp/chat/completions": True,
    "/models": False,
    "/models/apply": True,
    "/backends": False,
    "/backends/apply": True,
    "/v1/models": False,
    "/v1/chat/completions": True,
    "/chat/completions": True,
    "/v1/images/generations": True,
    "/v1/embeddings": True,
    "/metrics": False,
    "/system": False,
}


def test_a_key_is_asked_for_on_every_path(bubblewrap: None, built: Built) -> None:
    body = b'{"model": "plain", "messages": [{"role": "user", "content": "hello"}]}'
    with container.start(built.image, built.root, env={"LOCALAI_API_KEY": "the key"}) as running:
        served = {}
        for path, posts in ASK_FOR_A_KEY.items():
            request = urllib.request.Request(
                running.url + path, body if posts else None, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    served[path] = response.status
            except urllib.error.HTTPError as refused:
                served[path] = refused.code
        assert served == dict.fromkeys(ASK_FOR_A_KEY, 401)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer the key"}
        allowed = urllib.request.Request(running.url + "/v1/chat/completions", body, headers)
        with urllib.request.urlopen(allowed, timeout=120) as response:
            assert tiny_gguf.SENTENCE in response.read().decode()


BROKEN = {
    "not YAML": ("- name: [", "did not find expected"),
    "no list of models": ("just text", "cannot unmarshal"),
    "a value of the wrong type": ("- name: x\n  context_size: many", "cannot unmarshal !!str `many` into int"),
    "a path out of the models": ("- name: x\n  parameters:\n    model: ../etc/passwd", "invalid file path"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_config_stops_the_server(bubblewrap: None, built: Built, text: str, reason: str) -> None:
    config = built.root / "broken.yaml"
    config.write_text(text)
    try:
        with (
            pytest.raises(ContainerError, match="stopped with status 1") as stopped,
            container.start(built.image, built.root, arguments=["--config-file=/broken.yaml"]),
        ):
            pass
    finally:
        config.unlink()
    assert reason in str(stopped.value)


def test_gallery_and_upgrade_checks_are_off(running: container.Container) -> None:
    assert running.ask("/models/galleries") in ([], None)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (Shape(width=768, inner=3072, layers=4, heads=12, shared=4, tokens=32000), {}),
        (
            Shape(width=256, inner=1024, layers=24, heads=8, shared=8, tokens=1000),
            {"context_size": 2048, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "options": ["parallel:2"]},
        ),
    ],
)
def test_the_estimate_is_never_under_what_is_used_and_close_to_the_backends(
    bubblewrap: None, built: Built, tmp_path: Path, shape: Shape, settings: dict[str, Any]
) -> None:
    size = shaped_gguf.make(tmp_path / "m.gguf", shape).stat().st_size
    options = [*settings.get("options", []), "cache_ram:0"]
    entry = {"name": "m", "backend": "llama", "parameters": {"model": "m.gguf"}, **settings, "options": options}
    (tmp_path / "config.yaml").write_text(json.dumps([entry]))
    text = json.dumps(
        {"apiVersion": "v1alpha1", "models": [{"name": "m", "source": "m.gguf"}], "config": json.dumps([entry])}
    )
    aikitfile, _ = parse(text.encode(), "aikitfile.yaml")
    models = tuple(dataclasses.replace(model, pin=Pin("0" * 64, size)) for model in aikitfile.models)
    header = judge.of_file(tmp_path / "m.gguf")
    assert header
    launch = engine.launch(dataclasses.replace(aikitfile, models=models), {"/models/m.gguf": header.facts})
    assert launch.memory
    env = {"LOCALAI_MODELS_PATH": "/mnt", "CONFIG_FILE": "/mnt/config.yaml", "LOCALAI_THREADS": "1"}
    with container.start(built.image, built.root, env=env, volumes={"/mnt": tmp_path}) as running:
        running.ask("/v1/completions", {"model": "m", "prompt": "ab " * 300, "max_tokens": 4})
        server, backend = running.peak("local-ai"), running.peak("run.sh")
    assert server + backend <= launch.memory.request, f"{server} + {backend} were used"
    # What the server itself takes varies by a third.
    assert launch.memory.request <= 1.15 * (160 * MIB + backend), f"{server} + {backend} were used"
