"""docs/tried.md: what each image was seen to do. Tests that start an image write it, where AIKIT_TRIED is set.

So no runtime is claimed to work on more than this, and what was tried says when and on what.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

from support.image import Image

FILE = Path(__file__).parents[2] / "docs/tried.md"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Seen(IntEnum):
    """How far an image got."""

    STARTED = 1
    ANSWERED = 2


def record(image: Image, seen: Seen, file: Path = FILE) -> None:
    """Write the image's row anew, where the environment asks for it."""
    if not os.environ.get("AIKIT_TRIED"):
        return
    labels = image.run["Labels"]
    architecture = image.configuration["architecture"]
    key = (*(labels[f"aikit-nix.{part}"] for part in ("packages", "engine", "runtime")), architecture)
    head, rows = _read(file)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    version = labels["aikit-nix.engine.version"].split()[0]
    proof = (version, _machine(architecture), today)
    before = rows.get(key)
    if before and before[1:] == proof:
        seen = max(seen, Seen[before[0].upper()])
    rows[key] = (seen.name.lower(), *proof)
    table = [" | ".join(("", *key, *rows[key], "")).strip() for key in sorted(rows)]
    file.write_text("\n".join([*head, *table]) + "\n")


def _read(file: Path) -> tuple[list[str], dict[tuple[str, ...], tuple[str, ...]]]:
    """The lines up to the table's first row, and the rows: what the image is, and what was seen of it."""
    lines = file.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if re.match(r"\|[ |-]+$", line)) + 1
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[first:]]
    return lines[:first], {row[:4]: row[4:] for row in cells}


def _machine(architecture: str) -> str:
    """The processor and the graphics cards here."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = found[1] if found else platform.machine()
    if _ARCHITECTURES.get(platform.machine()) != architecture:
        processor = f"emulated on {processor}"
    cards = "no GPU"
    if shutil.which("nvidia-smi"):
        argv = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False)
        cards = ", ".join(said.stdout.split("\n")[:-1]) if said.returncode == 0 else cards
    return f"{processor}, {cards}".replace("|", "/")
