"""Images with llama-server, from an aikitfile to its answers: arguments, chat templates, embeddings."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from aikit_nix.engines.llama_server import settings
from aikit_nix.engines.llama_server.chat_template import Prompt
from aikit_nix.engines.llama_server.translation import BASE
from aikit_nix.image import sandbox
from engines.llama_server.test_chat_template import CONVERSATIONS, PROMPTS, render
from support import container, debian_lock, image, tiny_gguf
from support.command import aikit_nix

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module", autouse=True)
def packages(nix: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if lock := debian_lock.usable(tmp_path_factory.mktemp("lock"), print):
            patch.setenv("AIKIT_DEBIAN_LOCK", str(lock))
        yield


def build(folder: Path, config: str, templates: str = "") -> tuple[image.Image, Path]:
    """The image of a base model that has no chat template, unpacked."""
    tiny_gguf.make(folder / "base.gguf", chat_template=None)
    (folder / "aikitfile.yaml").write_text(
        f"apiVersion: v1alpha1\nmodels:\n  - name: base\n    source: base.gguf\n{templates}config: |\n{config}"
    )
    done = aikit_nix("gen", "--packages", "debian", "--escapes", "verbatim", "--flake", "flake", cwd=folder)
    assert done.returncode == 0, done.stderr
    return image.unpack(nix_build(folder, "default"), folder / "root"), folder / "root"


def nix_build(folder: Path, output: str) -> Path:
    argv = ["nix", "build", f"path:{folder}/flake#{output}", "--no-link", "--json"]
    built = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return Path(json.loads(built.stdout)[0]["outputs"]["out"])


SETTINGS = """\
  - name: the-model
    context_size: 512
    stopwords: [never said, always]
    template:
      chat: base
    parameters:
      model: base.gguf
"""
TEMPLATE = "    promptTemplates: [{name: base, template: '{{.Input}}'}]\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[image.Image, Path]:
    return build(tmp_path_factory.mktemp("base"), SETTINGS, TEMPLATE)


def test_the_settings_are_the_entrypoints_and_the_command_is_the_users(base: tuple[image.Image, Path]) -> None:
    run = base[0].run
    assert run["Entrypoint"][:2] == ["llama-server", "--host"]
    assert "/models/base.gguf" in run["Entrypoint"]
    assert not run.get("Cmd")
    assert run["Healthcheck"]["Test"][1:] == [
        "/usr/libexec/aikit-nix",
        "probe",
        "8080",
        "/health",
        "--port",
        "LLAMA_ARG_PORT",
    ]
    script = (base[1] / "usr/local/bin/llama-server").read_text()
    assert script.startswith("#!/usr/libexec/aikit-nix start\nexec /usr/bin/llama-server\n")
    assert script.endswith("\nfor avx\nneeds avx\nport 8080 --port LLAMA_ARG_PORT\n")


def test_every_option_of_the_table_is_one_of_llama_servers(base: tuple[image.Image, Path]) -> None:
    usr = base[1] / "usr"
    libraries = usr / "lib/x86_64-linux-gnu"
    argv = [f"{usr}/lib64/ld-linux-x86-64.so.2", "--library-path", f"{libraries}:{libraries}/llama"]
    argv += [f"{usr}/bin/llama-server", "--help"]
    help_ = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--([a-z0-9-]+)", "".join(line for line in help_.splitlines(True) if line[:1] == "-")))
    table = [setting for setting in settings.SETTINGS.values() if setting.option]
    wanted = {setting.option for setting in table}
    wanted |= {f"no-{setting.option}" for setting in table if setting.becomes is settings.Becomes.SWITCH}
    wanted |= set(re.findall(r"`--([a-z-]+)", "".join(setting.note for setting in settings.SETTINGS.values())))
    assert wanted - known == set()


@pytest.mark.usefixtures("bubblewrap")
def test_a_users_arguments_come_on_top(base: tuple[image.Image, Path]) -> None:
    arguments = ["--port", "18080", "--ctx-size", "256"]
    with container.start(*base, arguments=arguments, port=18080) as server:
        assert [model["id"] for model in server.ask("/v1/models")["data"]] == ["the-model"]
        assert server.ask("/props")["default_generation_settings"]["n_ctx"] == 256
        assert server.chat("Hello").startswith("This tiny model")


@pytest.mark.usefixtures("bubblewrap")
def test_a_base_model_goes_on_with_the_messages_and_stops_at_stopwords(base: tuple[image.Image, Path]) -> None:
    with container.start(*base) as server:
        assert server.ask("/apply-template", HELLO) == {"prompt": "Hello"}
        assert server.chat("Hello") == "This tiny model "
        # the API's own `stop` replaces them
        assert server.chat("Hello", stop=["sentence"]) == "This tiny model always answers with the same "


def entry(name: str, prompt: Prompt) -> dict[str, Any]:
    template: dict[str, object] = {
        "chat": prompt.chat,
        "chat_message": prompt.chat_message,
        "function": prompt.function,
    }
    template["join_chat_messages_by_character"] = prompt.join
    return {
        "name": name,
        "template": template,
        "roles": prompt.roles,
        "system_prompt": prompt.system_prompt,
        "parameters": {"model": "base.gguf"},
    }


@pytest.mark.usefixtures("bubblewrap")
def test_translated_templates_give_the_same_prompts_in_llama_server(tmp_path: Path) -> None:
    """What Go renders is what Jinja2 renders (test_chat_template.py) is what llama.cpp renders, but for blanks in JSON."""
    names = {f"model-{number}": prompt for number, prompt in enumerate(PROMPTS.values())}
    config = "".join(f"  - {json.dumps(entry(name, prompt), ensure_ascii=False)}\n" for name, prompt in names.items())
    with container.start(*build(tmp_path, config)) as server:
        for name, prompt in names.items():
            for talk in CONVERSATIONS:
                got = server.ask("/apply-template", {"model": name, **talk})["prompt"]
                assert (name, got.replace('": ', '":').replace(', "', ',"')) == (
                    name,
                    render(prompt if prompt != Prompt() else BASE, talk).replace('": ', '":').replace(', "', ',"'),
                )
        tools = CONVERSATIONS[2] | {"model": "model-5", "max_tokens": 8}
        assert server.ask("/v1/chat/completions", tools)["choices"]
        with pytest.raises(container.ContainerError, match="'nobody' not found"):
            server.chat("Hello", model="nobody")


@pytest.mark.usefixtures("bubblewrap")
def test_embeddings_of_a_gguf_that_names_no_pooling(tmp_path: Path) -> None:
    config = "  - {name: e, embeddings: true, parameters: {model: base.gguf}}\n"
    with container.start(*build(tmp_path, config)) as server:
        answer = server.ask("/v1/embeddings", {"input": ["one", "two"]})
        assert [len(each["embedding"]) for each in answer["data"]] == [64, 64]
    assert json.loads(nix_build(tmp_path, "checks.x86_64-linux.serves").read_text()) == {"models": ["e"]}


def test_the_flakes_own_check_starts_it_with_its_chat_template(base: tuple[image.Image, Path]) -> None:
    served = nix_build(base[1].parent, "checks.x86_64-linux.serves")
    assert json.loads(served.read_text()) == {"models": ["the-model"]}


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("arguments", [[], ["--parallel", "4", "--ctx-size", "2048"]])
def test_each_of_many_clients_has_the_whole_context(base: tuple[image.Image, Path], arguments: list[str]) -> None:
    """llama-server's own four slots share one context: two long requests at once get 500."""
    prompt = {"prompt": [7] * 500, "n_predict": 8}
    with container.start(*base, arguments=arguments) as server:
        assert server.ask("/props")["total_slots"] == (4 if arguments else 1)
        for clients in (2, 4, 16):
            with ThreadPoolExecutor(clients) as pool:
                answers = pool.map(lambda _: server.ask("/completion", prompt), range(clients))
                assert [answer["tokens_evaluated"] for answer in answers] == [500] * clients


@pytest.mark.usefixtures("bubblewrap")
def test_metrics_are_there_and_no_other_page_may_ask(base: tuple[image.Image, Path]) -> None:
    with container.start(*base) as server:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
            assert b"llamacpp:requests_processing" in answer.read()
        for origin, allowed in (("https://evil.example", None), ("http://localhost:3000", "http://localhost:3000")):
            request = urllib.request.Request(f"{server.url}/v1/models", headers={"Origin": origin})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == allowed


@pytest.mark.usefixtures("bubblewrap")
def test_openais_own_client_with_a_key_and_logs_in_json(base: tuple[image.Image, Path]) -> None:
    messages: Any = HELLO["messages"]
    with container.start(*base, env={"LLAMA_API_KEY": "secret", "LLAMA_ARG_LOG_JSONL": "1"}) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["the-model"]
            said = client.chat.completions.create(model="the-model", messages=messages, temperature=0)
            assert said.choices[0].message.content == "This tiny model "
            parts = list(
                client.chat.completions.create(model="the-model", messages=messages, temperature=0, stream=True)
            )
            assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "This tiny model "
            with pytest.raises(openai.BadRequestError, match="context"):
                client.completions.create(model="the-model", prompt="x" * 600)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(model="the-model", messages=messages)
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
        lines = server.log().splitlines()
        assert len([json.loads(line) for line in lines if line.startswith("{")]) > 10


@contextlib.contextmanager
def request_in_flight(server: container.Container) -> Iterator[socket.socket]:
    """A connection on which the server waits for the rest of the request."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(STREAMED)
        )
        time.sleep(0.5)
        yield connection


STREAMED = json.dumps({**HELLO, "stream": True, "max_tokens": 8}).encode()


@pytest.mark.usefixtures("bubblewrap")
def test_sigterm_ends_an_idle_server_with_0(base: tuple[image.Image, Path]) -> None:
    with container.start(*base) as server:
        server.process.terminate()
        assert server.process.wait(30) == 0


@pytest.mark.usefixtures("bubblewrap")
def test_sigterm_lets_a_stream_in_flight_come_to_its_end(base: tuple[image.Image, Path]) -> None:
    with (
        container.start(*base, env={"AIKIT_NIX_STOP_SECONDS": "60"}) as server,
        request_in_flight(server) as connection,
    ):
        server.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        connection.sendall(STREAMED)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"data: [DONE]\n\n" in answer
        assert server.process.wait(30) == 0


@pytest.mark.usefixtures("bubblewrap")
def test_sigterm_waits_for_a_request_no_longer_than_it_is_told(base: tuple[image.Image, Path]) -> None:
    with container.start(*base, env={"AIKIT_NIX_STOP_SECONDS": "1"}) as server, request_in_flight(server) as connection:
        server.process.terminate()
        # llama-server hangs while a request is read, and is then killed
        assert server.process.wait(30) in (0, 137)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.usefixtures("bubblewrap")
def test_sigterm_ends_a_server_that_loads_its_model(base: tuple[image.Image, Path], tmp_path: Path) -> None:
    """A pipe that nobody writes to is a model that takes its time."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        sandbox.start(base[0].run, base[1], listener, mounts={"/models/base.gguf": pipe}) as server,
    ):
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(2)
        server.terminate()
        assert server.wait(30) == 128 + 15
