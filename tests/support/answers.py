"""The same requests to both engines, what is seen of their answers, and the table of what differs."""

from __future__ import annotations

import json
import math
import operator
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "fixtures/answers.json"
PAGE = Path(__file__).parents[2] / "docs/engines.md"
BEGIN, END = "<!-- answers: written by tests/nixpkgs/test_answers.py -->", "<!-- answers end -->"
ENGINES = ("localai", "llama-server")

Facts = Mapping[str, Any]

MODEL = "gemma"
_MODELS = """apiVersion: v1alpha1
runtime: avx2
models:
  - name: gemma
    source: gemma.gguf
config: |
  - name: gemma
    backend: llama
"""
AIKITFILE = (
    _MODELS
    + """    parameters:
      model: gemma.gguf
      temperature: 0
    context_size: 1024
    system_prompt: You know geography.
    stopwords: ["Question:"]
    template:
      chat: |
        {{.SystemPrompt}}
        {{.Input}}
        Answer:
      chat_message: |
        {{if eq .RoleName "user"}}Question: {{.Content}}{{else if eq .RoleName "assistant"}}Answer: {{.Content}}{{else}}{{.Content}}{{end}}
      function: |
        {{.SystemPrompt}}
        {{range .Functions}}Tool {{.Name}}
        {{end}}{{.Input}}
        Answer:
"""
)
EMBEDDINGS = (
    _MODELS
    + """    embeddings: true
    parameters: {model: gemma.gguf, pooling: mean}
    context_size: 1024
"""
)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "find_city", "description": "Finds a city", "parameters": CITY}}


class Server:
    """A server's API at an address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: Any = None, **values: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        with self.open(path, values if body is None else body) as answer:
            text = answer.read().decode()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    def open(self, path: str, body: Any = None) -> Any:
        """The open answer to a POST, or without a body to a GET."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            return urllib.request.urlopen(request, timeout=300)
        except urllib.error.HTTPError as refused:
            return refused

    def chat(self, **values: Any) -> tuple[int, Any]:
        """An answer to the question, of 12 tokens at most."""
        return self.ask("/v1/chat/completions", {"model": MODEL, "messages": QUESTION, "max_tokens": 12} | values)


def _choice(status: int, answer: Any) -> dict[str, Any]:
    """What is seen of an answer with choices, or of a refusal."""
    if status != 200 or not isinstance(answer, dict) or not answer.get("choices"):
        return _refusal(status, answer)
    first = answer["choices"][0]
    message = first.get("message") or {}
    return {
        "status": status,
        "text": message.get("content", first.get("text")),
        "ends by": first.get("finish_reason"),
        "prompt tokens": answer.get("usage", {}).get("prompt_tokens"),
        "tokens": answer.get("usage", {}).get("completion_tokens"),
    }


def _refusal(status: int, answer: Any) -> dict[str, Any]:
    if status == 200:
        return {"status": status}
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    said = error.get("message") if isinstance(error, dict) else error
    return {"status": status, "says": str(said)}


def chat(server: Server) -> Facts:
    status, answer = server.chat()
    return _choice(status, answer) | {"keys": ", ".join(sorted(answer)), "model": answer.get("model")}


def own_system_message(server: Server) -> Facts:
    return _choice(*server.chat(messages=[{"role": "system", "content": "You count to ten."}, *QUESTION]))


def conversation(server: Server) -> Facts:
    more = [{"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    return _choice(*server.chat(messages=[*QUESTION, *more]))


def stop(server: Server) -> Facts:
    return _choice(*server.chat(stop=["e"], max_tokens=40))


def length(server: Server) -> Facts:
    return _choice(*server.chat(max_tokens=1))


def too_long(server: Server) -> Facts:
    return _refusal(*server.chat(messages=[{"role": "user", "content": "word " * 2000}]))


def unknown_model(server: Server) -> Facts:
    return _refusal(*server.chat(model="nobody"))


def no_model(server: Server) -> Facts:
    status, answer = server.ask("/v1/chat/completions", messages=QUESTION, max_tokens=4)
    return {"status": status, "model": answer.get("model")}


def broken_json(server: Server) -> Facts:
    return _refusal(*server.ask("/v1/chat/completions", b"{"))


def no_messages(server: Server) -> Facts:
    return _refusal(*server.ask("/v1/chat/completions", model=MODEL, max_tokens=4))


def tool_call(server: Server) -> Facts:
    return _tool(server, "required")


def named_tool_call(server: Server) -> Facts:
    return _tool(server, {"type": "function", "function": {"name": "find_city"}})


def _tool(server: Server, choice: Any) -> Facts:
    status, answer = server.chat(tools=[TOOL], tool_choice=choice, max_tokens=64)
    if status != 200:
        return _refusal(status, answer)
    first = answer["choices"][0]
    functions = [call["function"] for call in first["message"].get("tool_calls") or []]
    return {
        "status": status,
        "ends by": first["finish_reason"],
        "calls": [f"{function['name']}({', '.join(_json(function['arguments']))})" for function in functions],
        "content": first["message"].get("content"),
        "prompt tokens": answer["usage"]["prompt_tokens"],
    }


def json_schema(server: Server) -> Facts:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    status, answer = server.chat(response_format=form, max_tokens=64)
    seen = _choice(status, answer)
    return {**_short(seen), "as the schema": sorted(_json(seen.get("text")) or [])}


def _short(seen: Facts) -> Facts:
    return {key: value for key, value in seen.items() if key not in ("text", "tokens")}


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return None


def several(server: Server) -> Facts:
    status, answer = server.chat(n=2)
    return {**_refusal(status, answer), "choices": len(answer.get("choices", []))}


def logprobs(server: Server) -> Facts:
    status, answer = server.chat(logprobs=True, top_logprobs=2)
    if status != 200:
        return _refusal(status, answer)
    found = answer["choices"][0].get("logprobs") or {}
    content = found.get("content") or [{}]
    tokens = answer["usage"]["completion_tokens"]
    return {
        "status": status,
        "of each token": len(content) == tokens if found else None,
        "keys": ", ".join(sorted(content[0])),
        "alternatives": len(content[0].get("top_logprobs") or []),
    }


def stream(server: Server) -> Facts:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "stream": True}
    with server.open("/v1/chat/completions", body | {"stream_options": {"include_usage": True}}) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events if event.get("choices")]
    return {
        "status": answer.status,
        "text": "".join(choice["delta"].get("content") or "" for choice in choices),
        "first delta": choices[0]["delta"],
        "ends by": [choice["finish_reason"] for choice in choices if choice.get("finish_reason")],
        "last line": lines[-1],
        "usage in": "an event without choices" if not events[-1].get("choices") else "the last event",
    }


def cancellation(server: Server) -> Facts:
    """One slot: a short request waits as long as a long one goes on whose client has left."""
    long = {"model": MODEL, "prompt": "one two three four five six", "max_tokens": 300, "ignore_eos": True}
    started = time.monotonic()
    server.ask("/v1/completions", long)
    whole = time.monotonic() - started
    with server.open("/v1/completions", {**long, "stream": True}) as answer:
        answer.readline()
    started = time.monotonic()
    status, _ = server.chat(max_tokens=1)
    return {"status of the next": status, "the next waits for its end": time.monotonic() - started > whole / 2}


def completion(server: Server) -> Facts:
    return _choice(*server.ask("/v1/completions", model=MODEL, prompt="The capital of France is", max_tokens=6))


def models(server: Server) -> Facts:
    _, answer = server.ask("/v1/models")
    return {"ids": [model["id"] for model in answer["data"]], "keys": ", ".join(sorted(answer["data"][0]))}


def embeddings(server: Server) -> Facts:
    status, answer = server.ask("/v1/embeddings", model=MODEL, input=["Paris", "A much longer text of Rome"])
    if status != 200:
        return _refusal(status, answer)
    vectors = [each["embedding"] for each in answer["data"]]
    return {
        "status": status,
        "vectors": len(vectors),
        "numbers": len(vectors[0]),
        "length": round(math.hypot(*vectors[0]), 3),
        "alike": round(sum(map(operator.mul, *vectors)) / math.hypot(*vectors[0]) / math.hypot(*vectors[1]), 2),
        "prompt tokens": answer.get("usage", {}).get("prompt_tokens"),
    }


def chat_with_embeddings(server: Server) -> Facts:
    return _refusal(*server.chat(max_tokens=1))


def embeddings_base64(server: Server) -> Facts:
    status, answer = server.ask("/v1/embeddings", model=MODEL, input="Paris", encoding_format="base64")
    return (
        {"status": status, "is": type(answer["data"][0]["embedding"]).__name__}
        if status == 200
        else _refusal(status, answer)
    )


REQUESTS: Mapping[str, Callable[[Server], Facts]] = {
    "a chat, by the config's template and system prompt": chat,
    "a system message of the client's own": own_system_message,
    "a conversation": conversation,
    "`stop`": stop,
    "`max_tokens`": length,
    "a prompt longer than the context": too_long,
    "an unknown model": unknown_model,
    "no model": no_model,
    "broken JSON": broken_json,
    "no messages": no_messages,
    "a tool that must be called": tool_call,
    "a tool by its name": named_tool_call,
    "`response_format`, a JSON schema": json_schema,
    "`n: 2`": several,
    "`logprobs`": logprobs,
    "a stream": stream,
    "a client that leaves": cancellation,
    "`/v1/completions`": completion,
    "`/v1/models`": models,
}
ON_EMBEDDINGS: Mapping[str, Callable[[Server], Facts]] = {
    "`/v1/embeddings`, two texts": embeddings,
    "`/v1/embeddings` in base64": embeddings_base64,
    "a chat with a model for embeddings": chat_with_embeddings,
}

FILES = {"chat": (AIKITFILE, REQUESTS), "embeddings": (EMBEDDINGS, ON_EMBEDDINGS)}


def see(url: str, requests: Mapping[str, Callable[[Server], Facts]]) -> dict[str, Facts]:
    """What a server's answers show, by the request's name."""
    return {name: request(Server(url)) for name, request in requests.items()}


def write(seen: Mapping[str, Mapping[str, Facts]]) -> None:
    """Record what was seen, and write the docs' table of it."""
    RECORD.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(seen, PAGE.read_text()))


def page(seen: Mapping[str, Mapping[str, Facts]], text: str) -> str:
    """The page's text with the table of what was seen, by engine and request."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{_table(seen)}\n{END}{tail}"


def _table(seen: Mapping[str, Mapping[str, Facts]]) -> str:
    ours, theirs = (seen[engine] for engine in ENGINES)
    rows, same = [], []
    for name in ours:
        facts = [key for key in {**ours[name], **theirs[name]} if ours[name].get(key) != theirs[name].get(key)]
        rows += [f"| {name} | {key} | {_cell(ours[name].get(key))} | {_cell(theirs[name].get(key))} |" for key in facts]
        same += [] if facts else [name]
    head = ["| request | of the answer | LocalAI | llama-server |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, "", f"Alike: {', '.join(same)}."])


def _cell(value: Any) -> str:
    """A value in one cell of a table."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= 100 else f"{text[:99]}…"
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").strip() or "-"
