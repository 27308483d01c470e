"""Aikitfile + options → Plan: the pure JSON (plan.json) that the generated flake is built from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, TypeAlias

from aikit_nix import __version__, engines
from aikit_nix.aikitfile.types import Aikitfile, Backend, LayerPin, Model, Pin, Runtime
from aikit_nix.base import typed_json
from aikit_nix.base.errors import AikitError, Diagnostic, Position, Severity, error
from aikit_nix.base.typed_json import Sha256, Size, form
from aikit_nix.engines import CONFIG_PATH
from aikit_nix.engines import Engine as Engine
from aikit_nix.engines.memory import Memory
from aikit_nix.nix import command as nix
from aikit_nix.nix import store
from aikit_nix.registry import reference
from aikit_nix.sources import MODELS
from aikit_nix.sources.gguf import Facts

FORMAT_VERSION = 2
# nix/image.nix's: a layer each, and overlay file systems take 127 layers.
MOST_MODELS = 100


class Packages(StrEnum):
    """Where the programs come from."""

    NIXPKGS = "nixpkgs"
    DEBIAN = "debian"

    @property
    def minimum_nix(self) -> tuple[int, int]:
        """The oldest Nix that builds it (nixpkgs: its lib/minver.nix)."""
        return (2, 18) if self is Packages.NIXPKGS else nix.OLDEST


@dataclass(frozen=True)
class Options:
    """What the command line adds to an aikitfile. `None` means: the file's, or the default."""

    runtime: Runtime | None = None
    engine: Engine | None = None
    packages: Packages = Packages.NIXPKGS
    name: str | None = None
    tag: str | None = None
    cuda_capabilities: tuple[str, ...] = ()
    drop_settings: bool = False


@dataclass(frozen=True)
class Platform:
    """The runtimes that one Nix system (`x86_64-linux`) offers, and the one of the default image."""

    default: str
    runtimes: tuple[str, ...]


ModelPath: TypeAlias = Annotated[str, form(f"{MODELS}/.*", f"not below {MODELS}")]


@dataclass(frozen=True)
class ModelFile:
    """A model file: where it lands in the image, its name in the Nix store, its sha256 in hex, its size in bytes.

    `url` is None for a file that Nix cannot download, which is found in the store by its hash; `fetch` then says how it
    gets there. `size` (bytes) and `layer` are None where nobody has seen the bytes yet: Nix then works them out.
    """

    path: ModelPath
    name: str
    url: str | None
    sha256: Sha256
    size: Size | None = None
    layer: LayerPin | None = None
    fetch: str | None = None


@dataclass(frozen=True)
class TextFile:
    """A text of the image: its absolute path and its content."""

    path: str
    text: str


@dataclass(frozen=True)
class SourceFile:
    """A file that the plan was made from: its path relative to the flake's folder, its sha256 in hex."""

    path: str
    sha256: str


@dataclass(frozen=True)
class ImageName:
    """The image's reference (a null tag stands for the runtime) and its OCI labels."""

    name: str
    tag: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Everything the flake needs to know. `nix/default.nix` reads it."""

    image: ImageName
    packages: Packages
    engine: Engine
    backends: tuple[str, ...]
    systems: Mapping[str, Platform]
    models: tuple[ModelFile, ...]
    files: tuple[TextFile, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    probe: tuple[str, ...]
    env: Mapping[str, str]
    cudaCapabilities: tuple[str, ...]  # noqa: N815 (a JSON name); empty stands for nixpkgs' own list
    sources: tuple[SourceFile, ...] = ()
    memory: Memory | None = None
    generator: str = f"aikit-nix {__version__}"
    formatVersion: int = field(default=FORMAT_VERSION)  # noqa: N815 (a JSON name)

    def summary(self, count: int | None = None) -> str:
        """One line for the user; `count` is the number of models where not all of them are planned."""
        count = len(self.models) if count is None else count
        runtimes = ", ".join(f"{platform.default} on {system}" for system, platform in self.systems.items())
        models = f"{count} model{'' if count == 1 else 's'}"
        return f"image {self.image.name}, {models}, {self.engine} of {self.packages} for {runtimes}"

    def to_json(self) -> str:
        """The same plan gives the same bytes."""
        return typed_json.encode(self, is_sorted=True)


def make(
    aikitfile: Aikitfile, options: Options, headers: Mapping[str, Facts] = MappingProxyType({})
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """The plan, and the warnings on the way to it. A model without a pin is not in it.

    `headers` are what is known of the GGUFs' headers, by the model's path in the image. Raises AikitError for what cannot be
    built.
    """
    engine = server(aikitfile, options)
    # A template that stands twice (a warning) is one file
    templates = {each.path: each.template.value for model in aikitfile.models for each in model.prompt_templates}
    files = [TextFile(path, text) for path, text in templates.items()]
    if aikitfile.config:
        files.append(TextFile(CONFIG_PATH, aikitfile.config.value))

    launch = engines.launch(engine, aikitfile, headers, drop=options.drop_settings)
    files += [TextFile(path, text) for path, text in launch.files.items()]
    models = tuple(_model_file(model, model.pin) for model in aikitfile.models if model.pin)
    plan = Plan(
        image=_image(aikitfile, options, models, launch.memory),
        packages=options.packages,
        engine=engine,
        backends=tuple(sorted({backend.value.built.value for backend in aikitfile.backends})),
        systems=_systems(aikitfile, options),
        models=models,
        files=tuple(files),
        entrypoint=launch.entrypoint,
        cmd=launch.cmd,
        probe=launch.probe,
        env=launch.env,
        cudaCapabilities=_cuda_capabilities(options.cuda_capabilities),
        memory=launch.memory,
    )
    return plan, (*_licences(plan, *_runtime(aikitfile, options)), *launch.warnings)


def server(aikitfile: Aikitfile, options: Options) -> Engine:
    """The engine of the image. Raises AikitError for what cannot be built, whatever the models' bytes are."""
    engine = options.engine or (Engine.LOCALAI if options.packages is Packages.NIXPKGS else Engine.LLAMA_SERVER)
    if problems := _conflicts(aikitfile, options, engine):
        raise AikitError(*problems)
    return engine


def _cuda_capabilities(given: tuple[str, ...]) -> tuple[str, ...]:
    for capability in given:
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9][a-z]?", capability):
            raise error(
                f"--cuda-capability {capability!r}: give compute capabilities as NVIDIA writes them, such as 8.6"
            )
    return tuple(dict.fromkeys(given))


def _conflicts(aikitfile: Aikitfile, options: Options, engine: Engine) -> list[Diagnostic]:
    """Combinations that no derivation exists for, each with the nearest one that works."""
    found: list[Diagnostic] = []

    def refuse(message: str, at: Position | None) -> None:
        found.append(Diagnostic(Severity.ERROR, "combination", message, at))

    if len(aikitfile.models) > MOST_MODELS:
        refuse(
            f"{len(aikitfile.models)} models are more than an image has layers for: name at most {MOST_MODELS}",
            aikitfile.models[MOST_MODELS].at,
        )
    runtime, runtime_at = _runtime(aikitfile, options)
    if options.packages is Packages.NIXPKGS and runtime in (Runtime.ROCM, Runtime.VULKAN):
        refuse(f"runtime {runtime} is built from Debian's packages only: use `--packages debian`", runtime_at)
    if options.packages is Packages.NIXPKGS and runtime is Runtime.CPU:
        refuse(
            "runtime cpu, for any processor, comes from Debian's packages: use `--packages debian`, or avx", runtime_at
        )
    if options.packages is Packages.DEBIAN and engine is Engine.LOCALAI:
        refuse(
            "Debian has no LocalAI: use `--packages nixpkgs`, or `--engine llama-server` with debian",
            None,
        )
    if options.packages is Packages.DEBIAN and options.cuda_capabilities:
        refuse(
            "Debian's CUDA kernels are compiled already: leave --cuda-capability out, or use `--packages nixpkgs`", None
        )
    for backend in aikitfile.backends:
        if engine is Engine.LLAMA_SERVER:
            refuse(
                f"backend {backend.value} runs inside LocalAI: remove it, or use `--packages nixpkgs --engine localai`",
                backend.at,
            )
        elif backend.value.built is Backend.EXLLAMA2 and runtime is not Runtime.CUDA:
            refuse(
                f"backend {backend.value} runs on NVIDIA's GPUs only: add `runtime: cuda`, or use a GGUF of the model, which "
                "llama-cpp runs anywhere without an entry here",
                backend.at,
            )
    return found


def _runtime(aikitfile: Aikitfile, options: Options) -> tuple[Runtime | None, Position | None]:
    """The runtime that was asked for, and where; the option wins over the file."""
    if options.runtime:
        return options.runtime, None
    if aikitfile.runtime:
        return aikitfile.runtime.value, aikitfile.runtime.at
    return None, None


def _licences(plan: Plan, runtime: Runtime | None, at: Position | None) -> Iterator[Diagnostic]:
    if runtime is Runtime.CUDA:
        exllama2 = Backend.EXLLAMA2.value in plan.backends
        which = "cuBLAS, CUDA runtime" + (
            ", and with exllama2 also cuDNN, cuFile, NVSHMEM and others" if exllama2 else ""
        )
        text = (
            f"runtime cuda puts NVIDIA's CUDA libraries ({which}) into the image, under NVIDIA's licence and "
            "not a free one: who passes the image on is bound by https://docs.nvidia.com/cuda/eula/"
        )
        yield Diagnostic(Severity.NOTE, "licence", text, at)


def _systems(aikitfile: Aikitfile, options: Options) -> dict[str, Platform]:
    """Where the image can be built. An aikitfile without a runtime is avx on x86-64 (AIKit's spec page)."""
    runtime, _ = _runtime(aikitfile, options)
    x86 = [Runtime.AVX, Runtime.AVX2, Runtime.AVX512]
    if options.packages is Packages.DEBIAN:
        gpus = (Runtime.CUDA, Runtime.VULKAN)
        systems = {"x86_64-linux": Platform(runtime or Runtime.AVX, (Runtime.CPU, *x86, *gpus, Runtime.ROCM))}
        if runtime in (None, Runtime.CPU, *gpus):
            systems["aarch64-linux"] = Platform(runtime or Runtime.CPU, (Runtime.CPU, *gpus))
        return systems
    if any(backend.value.built is Backend.EXLLAMA2 for backend in aikitfile.backends):
        return {"x86_64-linux": Platform(Runtime.CUDA, (Runtime.CUDA,))}
    systems = {"x86_64-linux": Platform(runtime or Runtime.AVX, (*x86, Runtime.CUDA))}
    if runtime in (None, Runtime.CUDA):
        systems["aarch64-linux"] = Platform(runtime or Runtime.CPU, (Runtime.CPU, Runtime.CUDA))
    return systems


def _model_file(model: Model, pin: Pin) -> ModelFile:
    name = store.name(model.path.rsplit("/", 1)[-1])
    url = None if pin.private or model.is_local else pin.url
    fetch = None
    if url is None:
        what = "is a local file" if model.is_local else "cannot be downloaded by Nix itself"
        command = "gen" if model.is_local else "fetch"
        fetch = (
            f"The model {name} {what}, and is not in this machine's Nix store.\n"
            f"Run `aikit-nix {command}` beside the aikitfile, or add the file by hand:\n"
            f"  nix-store --add-fixed sha256 {name}\n"
            f"Its sha256 must be {pin.sha256}."
        )
    return ModelFile(model.path, name, url, pin.sha256, pin.size, pin.layer, fetch)


def _image(
    aikitfile: Aikitfile, options: Options, models: tuple[ModelFile, ...], memory: Memory | None = None
) -> ImageName:
    if options.name is not None and not reference.REPOSITORY.fullmatch(options.name):
        raise error(f"--name {options.name!r} is no image name: use lower-case letters, digits, `.`, `_`, `-`, `/`")
    if options.tag is not None and not reference.TAG.fullmatch(options.tag):
        raise error(f"--tag {options.tag!r} is no image tag: use up to 128 letters, digits, `.`, `_`, `-`")
    name = options.name or _image_name(aikitfile.models[0].name.value if aikitfile.models else "")
    return ImageName(
        name,
        options.tag,
        {
            "org.opencontainers.image.title": name,
            "aikit-nix.aikitfile": f"sha256:{aikitfile.digest}",
            "aikit-nix.models": json.dumps(
                {model.path: f"sha256:{model.sha256}" for model in models}, ensure_ascii=False
            ),
            **({"aikit-nix.memory": str(memory.request)} if memory else {}),
        },
    )


def _image_name(model: str) -> str:
    """The nearest image name to a model's name."""
    words = re.findall(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", model.lower())
    return "-".join(words)[:120].rstrip("-._") or "aikit"
