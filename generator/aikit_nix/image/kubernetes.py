"""Plain Kubernetes manifests for an image: a Deployment and a Service, to be kept and edited."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from aikit_nix.base import data
from aikit_nix.base.errors import error
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.engines import Engine
from aikit_nix.flakes.materials import Materials
from aikit_nix.sources import MODELS

_GPUS = {"cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu"}  # what device plugins call a runtime's processor
_MIB = 1 << 20
_OVERHEAD = 1 << 30
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"  # RFC 1123
_HOME = {"HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108 (the pod's own)


@dataclass(frozen=True)
class Wishes:
    """What a cluster's owner may want otherwise. `key_secret` names a Secret whose `api-key` clients have to send."""

    cpus: int = 2
    namespace: str | None = None
    network_policy: bool = False
    key_secret: str | None = None


def manifests(
    materials: Materials, system: str | None, image: str | None, server: str | None = None, wishes: Wishes | None = None
) -> str:
    """YAML for a system's image, for all systems' where none is named.

    `image` is the reference that nodes pull. With `server`, another image that has the engine, the models are mounted from
    `image` as an image volume. Raises AikitError.
    """
    wishes = wishes or Wishes()
    for given in (image, server, wishes.namespace, wishes.key_secret):
        if given and any("\ud800" <= character <= "\udfff" for character in given):
            raise error(f"{given!r} is no UTF-8: name it as registries and clusters do")
    for option, given, pattern in (
        ("--namespace", wishes.namespace, _LABEL),
        ("--key-secret", wishes.key_secret, rf"{_LABEL}(\.{_LABEL})*"),
    ):
        if given is not None and not re.fullmatch(pattern, given):
            raise error(f"{option} {given!r} is no name that Kubernetes takes: lower-case letters, digits and `-`")
    systems = [materials.system(system)] if system else sorted(materials.plan.systems)
    runtime = materials.runtime(systems[0])
    sizes = [model.file.size for model in materials.models]
    known = [size for size in sizes if size is not None]
    memory, limit = materials.plan.memory, None
    if memory:
        known, limit = [memory.request], -(-memory.limit // _MIB)
    elif len(known) == len(sizes):
        known.append(_OVERHEAD)
        limit = -(-2 * sum(known) // _MIB)
    told = _told(materials.plan.engine)
    values = {
        "name": _name(materials.plan.image.name),
        "image": image or materials.reference(systems[0]),
        "port": 8080,
        "memory": -(-sum(known) // _MIB) if limit else None,
        "limit": limit,
        "estimated": materials.plan.memory is not None,
        "gpu": _GPUS.get(runtime),
        "architecture": ARCHITECTURES[systems[0]] if len(systems) == 1 else None,
        **told,
        **vars(wishes),
    }
    if server is None:
        return data.template("k8s/deployment.yaml.j2", **values)
    if materials.plan.engine is not Engine.LLAMA_SERVER:
        raise error(
            "--server is for llama.cpp's server, which needs nothing but its arguments: a LocalAI image brings its backends",
            code="combination",
        )
    return data.template(
        "k8s/image-volume.yaml.j2",
        server=server,
        args=[_verbatim(word) for word in (*materials.plan.entrypoint, *materials.plan.cmd)],
        env=[(key, _verbatim(value)) for key, value in sorted({**_HOME, **materials.plan.env}.items())],
        files=[(file.path, file.text) for file in materials.plan.files if not file.path.startswith(f"{MODELS}/")],
        **values,
    )


def _told(engine: Engine) -> dict[str, str]:
    """Where the server says that it is ready and that it lives; the variables of its threads and of its API key."""
    match engine:
        case Engine.LLAMA_SERVER:
            return {"ready": "/health", "alive": "/health", "threads": "LLAMA_ARG_THREADS", "key": "LLAMA_API_KEY"}
        case Engine.LOCALAI:
            return {"ready": "/readyz", "alive": "/healthz", "threads": "LOCALAI_THREADS", "key": "LOCALAI_API_KEY"}
    assert_never(engine)


def _verbatim(text: str) -> str:
    """As Kubernetes takes it for that text: `$(NAME)` is a variable there, and `$$` a dollar."""
    return text.replace("$", "$$")


def _name(image: str) -> str:
    """The nearest DNS label (RFC 1123) to an image's name; a Service's begins with a letter."""
    words = re.findall(r"[a-z0-9]+", image.rpartition("/")[2].lower())
    label = "-".join(words)[:50].strip("-")
    return label if label[:1].isalpha() else f"model-{label}".rstrip("-")
