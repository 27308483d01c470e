"""Many clients of one server: requests a second and how long each takes, beside llama-server as Debian starts it."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import container
from support.image import Image

CLIENTS = (1, 4, 16)
REQUESTS = 16 * int(os.environ.get("AIKIT_BENCH_ROUNDS", "4"))

Number = tuple[str, float, str, float | None]


def measure(image: Image, root: Path, model: str) -> Iterator[Number]:
    """Name, value, unit and bound of each number; `model` is the file's path in the image."""
    plain = dataclasses.replace(image, configuration={"config": _plain(model)})
    found = {}
    for name, each in (("ours", image), ("plain", plain)):
        with container.start(each, root) as server:
            for clients in CLIENTS:
                found[name, clients] = _ask(server, clients)
    for clients in CLIENTS:
        for name in ("ours", "plain"):
            rate, latency = found[name, clients]
            yield f"{name}, clients {clients}: requests", rate, "/s", None
            yield f"{name}, clients {clients}: median latency", latency, "s", None
        # Plain llama-server answers four at once, of one context; ours one after the other, each with the whole context.
        yield (
            f"clients {clients}: plain requests to ours",
            found["plain", clients][0] / found["ours", clients][0],
            "times",
            2,
        )


def _plain(model: str) -> dict[str, object]:
    entrypoint = ["/usr/bin/llama-server", "--host", "0.0.0.0", "--port", "8080", "--model", model]
    return {"Entrypoint": entrypoint, "Env": ["HOME=/tmp"], "User": "65532:65532", "WorkingDir": "/"}


def _ask(server: container.Container, clients: int) -> tuple[float, float]:
    """Requests a second, and the median seconds of one."""

    def one(number: int) -> float:
        started = time.perf_counter()
        server.ask("/completion", {"prompt": f"{number} " + "word " * 60, "n_predict": 16, "temperature": 0})
        return time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        took = list(pool.map(one, range(REQUESTS)))
    return REQUESTS / (time.perf_counter() - started), statistics.median(took)
