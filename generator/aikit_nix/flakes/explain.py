"""`aikit-nix explain`: what each model, template and the config becomes in the image, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.types import Aikitfile, Model
from aikit_nix.base import console, files
from aikit_nix.base.errors import AikitError, Located
from aikit_nix.base.targets import ARCHITECTURES
from aikit_nix.flakes import plan
from aikit_nix.models import project as projects
from aikit_nix.models.entry import Entry
from aikit_nix.sources import MODELS, gguf
from aikit_nix.sources.gguf import Facts
from aikit_nix.sources.role import Role

_SLOTS = ("--parallel", "LLAMA_ARG_N_PARALLEL")
_CONTEXT = ("--ctx-size", "LLAMA_ARG_CTX_SIZE")
_ENTRYPOINTS = {plan.Engine.LOCALAI: "local-ai", plan.Engine.LLAMA_SERVER: "llama-server"}


def explain(project: projects.Project, written: Aikitfile, options: plan.Options) -> list[str]:
    """Lines for people. `written` is the same file read verbatim, to tell which texts were unescaped.

    Raises AikitError for what `gen` would refuse, but for models that are not pinned yet.
    """
    parsed = project.aikitfile
    spread, known = projects.spread(project), projects.facts(project)
    planned, _ = plan.make(spread, options, known)
    return [*_image(planned, len(spread.models), known), *_models(project, written), *_config(parsed, written)]


def _image(planned: plan.Plan, models: int, known: Mapping[str, Facts]) -> Iterator[str]:
    yield f"image     {planned.summary(models).removeprefix('image ')}"
    for system, platform in planned.systems.items():
        tag = planned.image.tag or platform.default
        others = ", ".join(runtime for runtime in platform.runtimes if runtime != platform.default)
        yield f"  default {planned.image.name}:{tag} on {system}{f' (others: {others})' if others else ''}"
    yield f"  runs    {' '.join([_ENTRYPOINTS[planned.engine], *planned.entrypoint, *planned.cmd])}, as user 65532, on port 8080"
    yield from _memory(planned, known)
    if planned.packages is plan.Packages.DEBIAN:
        yield from _debian(planned)
    if planned.backends:
        yield f"  backend {', '.join(planned.backends)}, besides llama-cpp"


def _memory(planned: plan.Plan, known: Mapping[str, Facts]) -> Iterator[str]:
    """What the server takes, where the models' headers and sizes are known; on a GPU the weights and the cache are there."""
    if planned.memory:
        request, limit = (console.size(size) for size in (planned.memory.request, planned.memory.limit))
        gpu = any(platform.default in ("cuda", "rocm", "vulkan") for platform in planned.systems.values())
        where = ", most of it on the GPU" if gpu else ""
        yield f"  memory  {request}{where}; {limit} with the cache of prompts"
    if planned.engine is plan.Engine.LLAMA_SERVER and "--model" in planned.entrypoint:
        pairs = [*planned.env.items(), *pairwise(planned.entrypoint)]
        # A model may have the name of an option
        slots, context = (
            int(next(said for name, said in reversed(pairs) if name in names and said.isdecimal()))
            for names in (_SLOTS, _CONTEXT)
        )
        facts = next((known.get(path) for name, path in pairs if name == "--model" and path in known), None)
        # What a model was not trained with, llama-server does not give it
        each = min(context // slots, (facts and facts.context_length) or context)
        yield f"  serves  {slots} request{'s' if slots > 1 else ''} at once, of {each} tokens with the answer; others wait"


def _debian(planned: plan.Plan) -> Iterator[str]:
    """What is fetched for the image, and what of it is not in Debian proper."""
    from aikit_nix.debian import lock as debian

    lock = debian.DebianLock.read(debian.LOCK)
    for system, platform in planned.systems.items():
        packages = lock.architectures[ARCHITECTURES[system]].image(platform.default)
        size = sum(package.size for package in packages) / 1e6
        yield f"  debian  {len(packages)} packages of {lock.suite} for {system}, {size:.0f} MB to fetch"
        for component in ("contrib", "non-free"):
            if names := [package.name for package in packages if package.component == component]:
                yield f"          {component}: {', '.join(names)}"


def _models(project: projects.Project, written: Aikitfile) -> Iterator[str]:
    texts = {template.name.at: template.template for model in written.models for template in model.prompt_templates}
    for model in project.aikitfile.models:
        yield ""
        yield f"model     {model.name.value} (line {model.at.line})"
        yield f"  file    {model.path}, a layer of its own"
        yield f"  from    {model.source.value.text}{', beside the aikitfile' if model.is_local else ''}"
        yield from _pin(model)
        yield from _origin(project.lock.entry(model) if project.lock else None)
        yield from _header(model, project.folder)
        for template in model.prompt_templates:
            yield ""
            yield f"template  {template.name.value} (line {template.name.at.line})"
            yield from _text(template.path, template.template, texts.get(template.name.at))


def _pin(model: Model) -> Iterator[str]:
    pin = model.pin
    if pin is None:
        yield f"  sha256  {'computed by gen' if model.is_local else 'not known: pin it with `aikit-nix lock`'}"
        return
    yield f"  sha256  {pin.sha256}"
    if pin.size is not None:
        yield f"  size    {pin.size} bytes"
    if pin.url and pin.url != model.source.value.text:
        yield f"  at      {pin.url}"
    if pin.layer:
        yield f"  layer   {pin.layer.digest}"


def _origin(entry: Entry | None) -> Iterator[str]:
    """What the place that the model comes from says about itself, by the lock."""
    origin = entry.origin if entry else None
    if origin and origin.repository:
        yield f"  origin  {origin.repository} at {origin.revision}"
    if origin and origin.license:
        yield f"  licence {origin.license}, as its origin says"
    if origin and origin.base_models:
        yield f"  made of {', '.join(origin.base_models)}, as its origin says"


def _header(model: Model, folder: Path) -> Iterator[str]:
    try:
        found = projects.local_files(model, folder) if model.is_local else []
    except AikitError as failed:
        yield f"  gguf    cannot be read: {failed.diagnostics[0].message}"
        return
    for _, file in found:
        try:
            with files.open_regular(file) as stream:
                header = gguf.read(stream)
        except (OSError, gguf.NotGgufError) as bad:
            if file.suffix == ".gguf":
                yield f"  gguf    cannot be read: {files.reason(bad) if isinstance(bad, OSError) else bad}"
            continue
        said = f"{header.context_length} tokens, {header.name or model.name.value}"
        yield f"  gguf    {header.architecture}, {said if header.role is Role.MODEL else header.role.words}"
    if not found and model.pin and model.pin.gguf:
        facts = model.pin.gguf
        said = f"{facts.context_length} tokens, {'a' if facts.chat_template else 'no'} chat template"
        yield f"  gguf    {said if facts.role is Role.MODEL else facts.role.words}"


def _config(parsed: Aikitfile, written: Aikitfile) -> Iterator[str]:
    if parsed.config is None:
        yield ""
        yield "config    none: the server finds the model files by itself"
        return
    yield ""
    yield f"config    (line {parsed.config.at.line})"
    yield from _text("/config.yaml", parsed.config, written.config)
    config = localai_config.read(parsed)
    for entry in config.entries if config else ():
        model = entry.words("parameters.model")
        yield f"  serves  {entry.name or '(no name)'} from {f'{MODELS}/{model}' if model else 'no model file'}"


def _text(path: str, text: Located[str], written: Located[str] | None) -> Iterator[str]:
    yield f"  file    {path}, {len(text.value.encode())} bytes, in the last layer"
    if written and written.value != text.value:
        yield f"  escapes undone: {written.value.count(chr(92)) - text.value.count(chr(92))} backslashes fewer than written"
    for line in text.value.removesuffix("\n").split("\n"):
        yield f"  | {line}"
