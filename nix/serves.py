"""Start an image's server outside of the image and ask it something: `serves.py SPEC.json OUT`.

The image's root is a folder here, so its absolute paths are moved below it. Its port is any that is free: without Nix's
sandbox another server may have the image's own, and would answer in its place.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_SECONDS = 600

spec_file, out = sys.argv[1:]
spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
state = tempfile.mkdtemp()
with socket.create_server(("127.0.0.1", 0)) as free:
    address = f"127.0.0.1:{free.getsockname()[1]}"
URL = f"http://{address}"


def moved(text: str) -> str:
    """The text with the image's paths moved below the root folder, and /tmp into the build's own."""
    text = re.sub(r"(?<![\w./-])/(models|etc|backends)(?![\w.-])", rf"{spec['root']}/\1", text)
    text = re.sub(r"(?<![\w./-])/tmp(?![\w-])", state, text)
    return re.sub(r"(?<![\w./-])/([\w-]+\.(?:yaml|ini))(?![\w-])", lambda match: moved_file(match[1]), text)


def moved_file(name: str) -> str:
    """A copy of a text file of the image's root whose own paths are moved too."""
    copy = Path(state) / name
    copy.write_text(moved((Path(spec["root"]) / name).read_text(encoding="utf-8")), encoding="utf-8")
    return str(copy)


def ask(path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=READY_SECONDS) as response:
        return json.load(response)


def answer(model: str) -> object:
    """What the model says, or of a model that does not chat, its embedding of a word."""
    message = {"role": "user", "content": "Hello"}
    try:
        said = ask("/v1/chat/completions", {"model": model, "messages": [message], "max_tokens": 16})
        return said.get("choices")
    except urllib.error.HTTPError as refusal:
        try:
            return ask("/v1/embeddings", {"model": model, "input": "Hello"}).get("data")
        except urllib.error.HTTPError:
            raise refusal from None


def wait_for_models(server: subprocess.Popen) -> list[str]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server ended with status {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(URL + "/health", timeout=5):
                return [model["id"] for model in ask("/v1/models")["data"]]
        except OSError:
            time.sleep(0.2)
    sys.exit(f"the server was not ready within {READY_SECONDS} s")


_, _, option, _ = spec["probe"]  # what tells the server its port
server = subprocess.Popen(
    [spec["bin"], *map(moved, spec["args"]), option, address if option == "--address" else address.rpartition(":")[2]],
    env={**os.environ, **{name: moved(value) for name, value in spec["env"].items()}},
    cwd=spec["root"],
)
try:
    models = wait_for_models(server)
    if models:
        said = answer(models[0])
        if not said:
            sys.exit(f"the model {models[0]} gave no answer")
        print(json.dumps(said, ensure_ascii=False)[:1000])
    Path(out).write_text(json.dumps({"models": models}, indent=2) + "\n", encoding="utf-8")
except urllib.error.HTTPError as failure:
    sys.exit(f"{failure.url}: {failure}: {failure.read().decode(errors='replace')}")
finally:
    server.terminate()
    server.wait()
