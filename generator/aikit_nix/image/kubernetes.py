"""Plain Kubernetes manifests for an image: a Deployment and a Service, to be kept and edited."""

from __future__ import annotations

import re
from typing import assert_never

from aikit_nix.base import data
from aikit_nix.base.errors import error
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.engines import Engine
from aikit_nix.flakes.materials import Recipe
from aikit_nix.sources import MODELS

_GPUS = {"cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu"}  # what device plugins call a runtime's processor
_MIB = 1 << 20
_OVERHEAD_MIB = 1024
_HOME = {"HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108 (the pod's own)


def manifests(recipe: Recipe, system: str | None, image: str | None, server: str | None = None) -> str:
    """YAML for a system's image, for all systems' where none is named.

    `image` is the reference that nodes pull. With `server`, another image that has the engine, the models are mounted from
    `image` as an image volume. Raises AikitError.
    """
    for given in (image, server):
        if given and any("\ud800" <= character <= "\udfff" for character in given):
            raise error(f"the image {given!r} is no UTF-8: name one as registries do")
    systems = [recipe.system(system)] if system else sorted(recipe.plan.systems)
    runtime = recipe.runtime(systems[0])
    sizes = [model.file.size for model in recipe.models]
    known = [size for size in sizes if size is not None]
    ready, alive = _probes(recipe.plan.engine)
    values = {
        "name": _name(recipe.plan.image.name),
        "image": image or recipe.reference(systems[0]),
        "port": 8080,
        "ready": ready,
        "alive": alive,
        "memory": -(-sum(known) // _MIB) + _OVERHEAD_MIB if len(known) == len(sizes) else None,
        "gpu": _GPUS.get(runtime),
        "architecture": ARCHITECTURES[systems[0]] if len(systems) == 1 else None,
    }
    if server is None:
        return data.template("k8s/deployment.yaml.j2", **values)
    if recipe.plan.engine is not Engine.LLAMA_SERVER:
        raise error(
            "--server is for llama.cpp's server, which needs nothing but its arguments: a LocalAI image brings its backends",
            code="combination",
        )
    return data.template(
        "k8s/image-volume.yaml.j2",
        server=server,
        args=[*recipe.plan.entrypoint, *recipe.plan.cmd],
        env=sorted({**_HOME, **recipe.plan.env}.items()),
        files=[(file.path, file.text) for file in recipe.plan.files if not file.path.startswith(f"{MODELS}/")],
        **values,
    )


def _probes(engine: Engine) -> tuple[str, str]:
    """Where the server says that it is ready, and that it lives."""
    match engine:
        case Engine.LLAMA_SERVER:
            return "/health", "/health"
        case Engine.LOCALAI:
            return "/readyz", "/healthz"
    assert_never(engine)


def _name(image: str) -> str:
    """The nearest DNS label (RFC 1123) to an image's name; a Service's begins with a letter."""
    words = re.findall(r"[a-z0-9]+", image.rpartition("/")[2].lower())
    label = "-".join(words)[:50].strip("-")
    return label if label[:1].isalpha() else f"model-{label}".rstrip("-")
