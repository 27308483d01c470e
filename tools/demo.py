"""The demo: a real model, an aikitfile, `aikit-nix gen`, `nix build`, and an answer from the image.

Nothing of it is special: the same commands work on any aikitfile. What the demo adds is where the model comes
from, and the small container runtime (support/container.py) that starts the image without Docker.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import gemma
from aikit_nix.base import targets
from aikit_nix.base.errors import AikitError
from aikit_nix.image import containers, layout
from aikit_nix.image.rootfs import UnpackError
from aikit_nix.nix import setup
from support import container, debian_lock, image, nix_env, tiny_gguf

QUESTION = "What is the capital of France?"

# Gemma 3 270M is a base model: two examples show it what an answer looks like.
EXAMPLES = (
    ("What is the capital of Germany?", "The capital of Germany is Berlin."),
    ("Which planet is the largest?", "Jupiter is the largest planet of the solar system."),
)

AIKITFILE = """\
apiVersion: v1alpha1
runtime: {runtime}
models:
  - name: {name}
    source: {file}
config: |
  - name: {name}
    backend: llama-cpp
    context_size: 2048
    parameters:
      model: {file}
      temperature: 0
"""

NEEDED_BYTES = 2_000_000_000


class CannotError(Exception):
    """Why the demo cannot go on, and what to do about it."""


class Demo:
    """The steps of the demo, with the console that they print to and the times that they took."""

    def __init__(self, folder: Path) -> None:
        self.console = Console(highlight=False)
        self.folder = folder
        self.flake = folder / "flake"
        self.times: dict[str, float] = {}

    def run(self, question: str) -> None:
        """All steps, then the summary."""
        runtime = runtime_of_this_machine()
        self.check_machine()
        with self.step("model"):
            model = self.model()
        with self.step("aikitfile → flake"):
            self.generate(model, runtime)
        with self.step("flake → image (nix build)"):
            result = self.build()
        root = self.folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        try:
            with self.step("unpack the image"), self.progress() as progress:
                task = progress.add_task("unpacking", total=layout.read_layout(result).size)
                read = image.unpack(result, root, lambda count: progress.update(task, advance=count))
            with self.step("start it and ask"):
                self.ask(read, root, question, model.name != tiny_gguf.FILE)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        self.summarize(read, result)

    def check_machine(self) -> None:
        """Raises CannotError where a later step must fail."""
        for problem in (setup.problem(), container.missing()):
            if problem:
                raise CannotError(problem)
        free = shutil.disk_usage(self.folder).free
        if free < NEEDED_BYTES:
            raise CannotError(
                f"{self.folder} has {free / 1e9:.1f} GB free, the demo needs {NEEDED_BYTES / 1e9:.0f}: "
                "make room, or set XDG_CACHE_HOME to a folder on another disk"
            )

    def model(self) -> Path:
        """The real model, or where it cannot be had a small one that always answers the same sentence."""
        path = self.folder / gemma.FILE
        self.console.print(f"  {gemma.TERMS}")
        if gemma.is_complete(path):
            self.say(f"{path} is here from an earlier run")
            return path
        self.say("It is downloaded now: who does not agree ends that with Ctrl-C")
        try:
            with self.progress() as progress:
                task = progress.add_task("downloading Gemma 3 270M", total=gemma.DOWNLOAD_BYTES)
                gemma.fetch(path, lambda count: progress.update(task, completed=count))
        except gemma.UnavailableError as problem:
            self.say(f"The model cannot be had ({problem}): going on with a tiny one that knows one sentence")
            return tiny_gguf.make(self.folder / tiny_gguf.FILE)
        self.say(f"{path} ({path.stat().st_size / 1e6:.0f} MB, checked by its sha256; {gemma.terms_file(path)})")
        return path

    def generate(self, model: Path, runtime: str) -> None:
        """Write the aikitfile and run `aikit-nix gen`."""
        aikitfile = self.folder / "aikitfile.yaml"
        text = AIKITFILE.format(runtime=runtime, name=model.stem.removesuffix("-q4_k_m"), file=model.name)
        aikitfile.write_text(text)
        self.console.print(escape(text.rstrip()), style="dim")
        # A later run may have another model: the flake of an earlier one is ours to replace.
        shutil.rmtree(self.flake, ignore_errors=True)
        lock = debian_lock.usable(self.folder, self.say)
        argv: list[str | Path] = ["aikit-nix", "gen", "--packages", "debian"]
        self.command([*argv, "--debian-lock", lock] if lock else argv)

    def build(self) -> Path:
        """`nix build`: the image."""
        self.command(["aikit-nix", "fetch"])
        self.command(["nix", "build", "path:flake", "-L"])
        return (self.folder / "result").resolve()

    def ask(self, read: image.Image, root: Path, question: str, examples: bool) -> None:
        """Start the image and print what it answers."""
        messages = [
            {"role": role, "content": text}
            for pair in (EXAMPLES if examples else ())
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        messages.append({"role": "user", "content": question})
        body = {"messages": messages, "temperature": 0, "max_tokens": 64, "stop": ["<|im_end|>", "\n"]}
        with self.console.status("starting the image"), container.start(read, root) as server:
            self.say("serving, with a read-only root, no capabilities and no network of its own")
            answer = server.ask("/v1/chat/completions", body)
        speed = answer.get("timings", {}).get("predicted_per_second")
        self.console.print(f"\n  [bold]Question[/]  {escape(question)}")
        self.console.print(f"  [bold]Answer[/]    [green]{escape(answer['choices'][0]['message']['content'])}[/]")
        rate = f", {speed:.{0 if speed >= 10 else 1}f} tokens/s" if speed and speed >= 0.1 else ""
        self.console.print(f"  [dim]POST /v1/chat/completions{rate}[/]\n")

    def summarize(self, read: image.Image, result: Path) -> None:
        """What came out, and how long it took."""
        table = Table("layer", "size", "holds", box=None, padding=(0, 2), header_style="bold")
        for layer in sorted(read.layers, key=lambda layer: -layer.size)[:8]:
            names = [path.split("-", 1)[-1] for path in layer.store_paths]
            table.add_row(layer.digest[7:19], f"{layer.size / 1e6:.1f} MB", escape(", ".join(names or layer.files[:2])))
        self.console.print(table)
        if len(read.layers) > 8:
            self.console.print(f"  … {len(read.layers)} layers in all", style="dim")
        total = time.time() - float(os.environ.get("AIKIT_NIX_STARTED", time.time() - sum(self.times.values())))
        rows = {
            "image": str(result),
            "name": layout.read_layout(result).name,
            "digest": read.digest,
            "size": f"{read.size / 1e6:.0f} MB in {len(read.layers)} layers",
            "times": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.times.items()),
            "in all": f"{total:.0f} s, installation included",
            "run it": f"aikit-nix run --flake {self.flake} --chat",
        }
        if engine := containers.choose(None, tuple(containers.ENGINES.values())):
            rows["load it"] = f"aikit-nix load --flake {self.flake} --with {engine.program}"
        self.console.print()
        for name, value in rows.items():
            self.console.print(f"[bold]{name:8}[/]{escape(value)}", soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step: its heading, and its time for the summary."""
        self.console.print(f"[bold blue]▸ {name}[/]")
        started = time.monotonic()
        yield
        self.times[name] = time.monotonic() - started

    def command(self, argv: Sequence[str | Path]) -> None:
        """Run a command with what it says last beside a spinner. Raises CannotError with its last lines."""
        words = [str(word) for word in argv]
        self.console.print(f"  [dim]$ {escape(shlex.join(words))}[/]", soft_wrap=True)
        said: list[str] = []
        quiet = words[0] == "nix"
        with (
            self.console.status(words[0]) as status,
            subprocess.Popen(
                words,
                cwd=self.folder,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            assert process.stdout
            for line in map(str.rstrip, process.stdout):
                said.append(line)
                if quiet:
                    status.update(f"[dim]{escape(line[: self.console.width - 8])}[/]")
                else:
                    self.say(line)
        if process.returncode != 0:
            raise CannotError(f"`{words[0]} {words[1]}` failed:\n" + "\n".join(said[-12:]))

    def progress(self) -> Progress:
        """A progress bar for bytes, which goes when it is done."""
        columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def say(self, text: str) -> None:
        """One line of a step."""
        self.console.print(f"  {escape(text)}", soft_wrap=True)


def runtime_of_this_machine() -> str:
    """The best runtime that this CPU can run. Raises CannotError where there is none."""
    if platform.machine() != "x86_64":
        raise CannotError(f"the demo's Debian packages are for x86_64 only, this machine is {platform.machine()}")
    if runtime := targets.best_runtime():
        return runtime
    raise CannotError("this CPU has no AVX, which every runtime of an aikitfile needs")


def main() -> int:
    """Run the demo; 0 when the image answered."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "aikit-nix" / "demo"
    os.environ.update(nix_env.environment())
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Demo(folder).run(os.environ.get("ASK") or QUESTION)
    except (CannotError, AikitError, UnpackError, container.ContainerError, OSError) as problem:
        print(str(problem) if isinstance(problem, AikitError) else f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
