"""`aikit-nix load`, `push`, `run`, `inspect`, `diff`: what is done with an image."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aikit_nix.base import console, data
from aikit_nix.base.errors import error
from aikit_nix.commands import options
from aikit_nix.commands.options import INSECURE

if TYPE_CHECKING:
    from aikit_nix.image.push import Content
    from aikit_nix.image.supply import Supply

FORMAT = click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@options.IMAGE
@click.option(
    "--mount-from", metavar="REPOSITORY", multiple=True, help="A repository of the registry to mount layers from."
)
@INSECURE
@click.option(
    "--chunk",
    type=click.IntRange(1, 5000),
    default=64,
    show_default=True,
    metavar="MIB",
    help="Most MiB that are sent in one request.",
)
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Uploads at a time.")
@click.option("--all-systems", is_flag=True, help="One index of the flake's images for all its architectures.")
@click.option("--modelpack", is_flag=True, help="The models alone, as a ModelPack artifact.")
def push(
    references: tuple[str, ...],
    flake: str,
    mount_from: tuple[str, ...],
    insecure: bool | None,
    chunk: int,
    jobs: int,
    all_systems: bool,
    modelpack: bool,
) -> None:
    """Bring the flake's image to registries.

    REF is REGISTRY/REPOSITORY:TAG. Only what a registry lacks is sent, and nothing is stored here: a model comes from
    the Nix store, from its file beside the aikitfile, or straight from its origin. Logins are those of docker and podman.
    """
    from aikit_nix.base.errors import AikitError, Diagnostic
    from aikit_nix.image import supply
    from aikit_nix.image.push import Sending
    from aikit_nix.image.push import push as send
    from aikit_nix.registry import reference

    with supply.opened(flake) as models:
        how = Sending(models, mount_from, insecure, chunk << 20, jobs)
        if not modelpack:
            models.learn(reference.parse(references[0]), how)
        tag, contents = _contents(flake, models, all_systems=all_systems, modelpack=modelpack)
        targets = [reference.parse(text, tag) for text in references]
        problems: list[Diagnostic] = []
        for target in targets:
            try:
                done = send(contents(), target, how)
            except AikitError as failed:
                problems += failed.diagnostics
                continue
            console.say(str(done), err=True)
            console.show(f"{target.name}@{done.digest}")
    if problems:
        raise AikitError(*problems)


def _contents(
    flake: str, models: Supply, *, all_systems: bool, modelpack: bool
) -> tuple[str, Callable[[], list[Content]]]:
    """The usual tag of what is pushed, and what it is, made anew for each registry: each reads the models for itself."""
    from aikit_nix.flakes import materials
    from aikit_nix.image import find, index
    from aikit_nix.image import modelpack as packs
    from aikit_nix.image.push import of_image

    if modelpack:
        found = materials.read(Path(flake))
        return "latest", lambda: [packs.make(found, models)]
    systems = sorted(materials.read(Path(flake)).plan.systems) if all_systems else []
    images = [find.layout_of(flake, f"packages.{system}.manifest") for system in systems] or [find.layout_of(flake)]
    over = [index.make(images)] if all_systems else []
    return images[0].tag, lambda: [*(of_image(image, models) for image in images), *over]


@click.command()
@options.IMAGE
@click.option(
    "--with",
    "program",
    type=click.Choice(["docker", "podman", "nerdctl", "ctr"]),
    help="The container engine.  [default: the first of these that works]",
)
def load(flake: str, program: str | None) -> None:
    """Load the flake's image into docker, podman or containerd.

    Nothing stores a copy of it on the way.
    """
    from aikit_nix.image import containers, find
    from aikit_nix.image import load as loading

    engine = containers.choose(program, tuple(containers.ENGINES.values()))
    if engine is None:
        raise error(
            f"no container engine: {containers.none_works(tuple(containers.ENGINES.values()))}", code="no-engine"
        )
    image, stream = find.stream_of(flake)
    loading.load(image, stream, engine)
    console.say(f"loaded {image.name} into {engine.program}")
    if engine.gpu:
        console.say(f"next: {shlex.join(engine.run(image.name, 8080, (), gpu=image.wants_gpu))}")


@click.command()
@click.argument("image", metavar="[FLAKE|LAYOUT|ARCHIVE|REF]", default=str(data.FLAKE))
@FORMAT
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the layers into a file.")
@INSECURE
def inspect(image: str, format_: str, svg: Path | None, insecure: bool | None) -> None:
    """Show what is in an image, and how it is run.

    Of the flake in ./flake, unless another one, an OCI layout, a docker-archive or a name in a registry is
    given. No model is needed for it. It is what the image says of itself, which nobody judges: `verify` does.
    """
    from aikit_nix.base import files
    from aikit_nix.image import find
    from aikit_nix.image import inspect as inspecting

    found = find.image_of(image, insecure=insecure)
    if svg:
        files.write_atomic(svg, inspecting.svg(found).encode())
    if format_ == "json":
        console.write(json.dumps(inspecting.to_json(found), indent=2, ensure_ascii=False) + "\n")
    else:
        console.show(*inspecting.text(found))


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@FORMAT
@click.option("--exit-code", is_flag=True, help="Exit with 1 where they differ.")
@INSECURE
def diff(a: str, b: str, format_: str, exit_code: bool, insecure: bool | None) -> None:
    """Show what differs between two images, or two locks.

    An image is a flake, an OCI layout, a docker-archive or a name in a registry; a lock is an aikit.lock. Images are
    taken at their word, and not judged: `verify` does that.
    """
    from aikit_nix.image import diff as diffing
    from aikit_nix.image import find
    from aikit_nix.image.layout import Image
    from aikit_nix.models import lock as locks

    both = [
        locks.read(Path(side)) if side.endswith(".lock") else find.image_of(side, insecure=insecure) for side in (a, b)
    ]
    match both:
        case [locks.Lock() as one, locks.Lock() as other]:
            found = diffing.locks(one, other)
        case [Image() as image, Image() as new]:
            found = diffing.images(image, new)
            if format_ == "text" and found:
                console.say(f"who has {a} fetches {console.size(diffing.to_fetch(image, new))} for {b}", err=True)
        case _:
            raise error(f"{a} and {b} cannot be compared: name two images, or two locks", code="diff")
    if format_ == "json":
        console.write(json.dumps([each.to_json() for each in found], indent=2, ensure_ascii=False) + "\n")
    else:
        console.show(*(line for each in found for line in each.lines()))
    if found and exit_code:
        sys.exit(1)


@click.command()
@click.argument("arguments", metavar="[-- ARGUMENT...]", nargs=-1)
@options.IMAGE
@click.option(
    "--with",
    "program",
    type=click.Choice(["podman", "docker", "nerdctl", "bubblewrap"]),
    help="What runs it.  [default: the first of these that works]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port here; 0: any free one."
)
@click.option("--chat", is_flag=True, help="Answer the lines of standard input, then stop.")
def run(arguments: tuple[str, ...], flake: str, program: str | None, port: int, chat: bool) -> None:
    """Run the flake's image until Ctrl-C.

    ARGUMENTs are the server's. Without a container engine it runs in bubblewrap: no network but one port of this
    machine's loopback, a read-only root, the models mounted from the Nix store.
    """
    from aikit_nix.image import chat as chatting
    from aikit_nix.image import run as running

    with running.serve(flake, program=program, port=port, arguments=arguments, quiet=chat) as server:
        if chat:
            keys = " (Ctrl-C ends an answer, Ctrl-D the chat)" if sys.stdin.isatty() else ""
            console.say(f"ready: {server.url}{keys}", err=True)
            chatting.talk(server.url)
            return
        try:
            console.show(f"ready: {server.url}/v1 (Ctrl-C stops it)")
            status = server.process.wait()
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            console.say("stopped", err=True)
            return
    raise error(f"the server ended with status {status}", code="server-ended")
