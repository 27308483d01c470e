"""`aikit-nix init`: an aikitfile for a model that the user names, from what the GGUF's header says."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from aikit_nix import sources
from aikit_nix.aikitfile import schema
from aikit_nix.base import targets
from aikit_nix.base.errors import AikitError, error
from aikit_nix.engines.companions import KEYS
from aikit_nix.flakes import choices, write
from aikit_nix.flakes import folder as folders
from aikit_nix.flakes.choices import Choices
from aikit_nix.flakes.plan import Packages
from aikit_nix.http.connection import HttpError
from aikit_nix.models import lock
from aikit_nix.registry import reference
from aikit_nix.registry.reference import Reference
from aikit_nix.sources import HubFile, HubRepository, Web, gguf, head, huggingface, judge, oci
from aikit_nix.sources.names import first_shard, shards
from aikit_nix.sources.role import Role

if TYPE_CHECKING:
    from aikit_nix.http.client import Client

# The key-value cache grows with the context: a default that fits the memory of the machines at hand
_CONTEXT = 8192
_BASE_TOKENS = 256
_REPO = re.compile(r"([\w.-]+/[\w.-]+)(?::(.+))?", re.ASCII)
_EMBEDDERS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "gte-bert")


@dataclass(frozen=True)
class Found:
    """A model's files (a sharded one has several), as they go into the aikitfile; the header is the first file's."""

    files: tuple[tuple[str, str | None], ...]  # source, and the sha256 that the user gave
    header: gguf.Header

    @property
    def key(self) -> str | None:
        """What in the config of another model names it; None for a model of its own."""
        return KEYS.get(self.header.role)

    @property
    def file(self) -> str:
        """The base name of the first file."""
        return sources.read(self.files[0][0]).file


def refuse_overwriting(output: Path, *, force: bool) -> None:
    """Raise AikitError where the aikitfile or its lock is there already."""
    for file in (output, lock.beside(output)):
        if os.path.lexists(file) and not force:
            raise error(f"{file} is there already: name another file with --output, or overwrite it with --force")


def ask(runtime: str | None, packages: str | None) -> tuple[tuple[str, ...], str | None, str]:
    """Ask a person on a terminal for the model and, where they were not given, the runtime and the package set."""
    if not sys.stdin.isatty():
        raise error("no model: give --model URL, NAMESPACE/REPO on Hugging Face, ollama://NAME, or a GGUF file")
    model = click.prompt("Model (URL of a GGUF, NAMESPACE/REPO on Hugging Face, ollama://NAME, or a file)").strip()
    chosen = runtime
    if chosen is None and (best := targets.best_runtime()):  # else, as on arm64, the file does without
        chosen = click.prompt("Runtime", type=click.Choice(schema.RUNTIMES), default=best)
    question = "Programs from (debian: ready in seconds; nixpkgs: compiled from source)"
    origin = packages or click.prompt(question, type=click.Choice([each.value for each in Packages]), default="debian")
    return (model,), chosen, str(origin)


def remember(packages: str, flake: Path) -> bool:
    """Keep a choice for the first `gen`; whether it could be kept: a flake that is there has its own. Raises AikitError."""
    if os.path.lexists(flake):
        return choices.read(flake).packages == packages
    folders.write(write.chosen(Choices(packages=packages)), flake)
    return True


def find(model: str, folder: Path, client: Client, sha256: str | None = None) -> list[Found]:
    """The model that the user named. Raises AikitError where it cannot be had or is no GGUF."""
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise error("--sha256 must be 64 lower-case hex digits")
    try:
        if Path(model).exists() or not (_REPO.fullmatch(model) or ":" in model):
            return [_local(Path(model), folder, sha256)]
    except (OSError, ValueError):
        raise error(f"--model {model!r} is no file name") from None
    if model.startswith("ollama://"):
        return _artifact(client, reference.of_ollama(model), sha256)
    repo = _REPO.fullmatch(model)
    if repo and (repo[2] or not model.endswith(".gguf")):
        return _repository(client, repo[1], repo[2], sha256=sha256)
    if repo:
        return [_local(Path(model), folder, sha256)]
    return _url(client, model, sha256)


def _local(path: Path, folder: Path, sha256: str | None) -> Found:
    if not path.is_file():
        raise error(f"{path} is not there: give --model a file, a URL or NAMESPACE/REPO on Hugging Face")
    try:
        below = path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        raise error(
            f"{path} is outside of {folder.absolute()}: an aikitfile sees only what is beside it, move or link it there"
        ) from None
    names = _parts(below)
    for name in names:
        if not (folder / name).is_file():
            raise error(f"{folder / name} is not there: a model in {len(names)} parts needs all of them")
    header = _header(folder / names[0])  # what the model says of itself stands in the first part
    for name in names[1:]:
        _header(folder / name)
    return _found([_readable(name).text for name in names], sha256, header)


def _found(files: Sequence[str], sha256: str | None, header: gguf.Header) -> Found:
    if sha256 and len(files) > 1:
        raise error(
            f"--sha256 is that of one file, and this model has {len(files)} parts: leave it out, aikit.lock pins each"
        )
    return Found(tuple((file, sha256) for file in files), header)


def _url(client: Client, url: str, sha256: str | None) -> list[Found]:
    match source := _readable(url):
        case HubRepository():
            return _repository(client, source.repo, source.folder and f"{source.folder}/*", source.revision, sha256)
        case HubFile():
            repository = huggingface.describe(source.repo, source.revision, client, source.path)
            try:
                (chosen,) = huggingface.chosen(source, repository)
            except sources.RefusedError as refused:
                raise error(f"--model {url!r} {refused}") from None
            return [_hub_model(client, repository, source.revision, chosen.path, sha256)]
        case Web():
            pass
        case Reference():
            return _artifact(client, url, sha256)
        case _:
            raise error(f"--model {url!r} is neither a file, a URL nor a repository")
    return [_found([source.text], sha256, _remote_header(client, source.url, source.url, {}))]


def _artifact(client: Client, address: str, sha256: str | None) -> list[Found]:
    """A model in a registry: the one GGUF of an artifact."""
    try:
        source = oci.read(address)
        models = [blob for blob in oci.describe(source, client).blobs if blob.is_gguf]
    except sources.RefusedError as refused:
        raise error(f"--model {address!r} {refused}") from None
    if len(models) != 1:
        raise error(f"--model {address!r} has {len(models)} GGUF files: init takes an artifact of one")
    there = oci.repository(source, client)
    url = there.url(f"blobs/{models[0].digest}")
    header = there.asked(lambda login: _remote_header(client, address, url, login, models[0].path))
    return [_found([source.text], sha256, header)]


def _repository(
    client: Client, repo: str, pattern: str | None, revision: str = "main", sha256: str | None = None
) -> list[Found]:
    repository = huggingface.describe(repo, revision, client)
    files = [path for path in repository.files if path.lower().endswith(".gguf")]
    projectors = [path for path in files if "mmproj" in path.lower()]
    firsts = [path for path in files if path not in projectors and path == first_shard(path)]
    if not firsts:
        raise error(f"{repo} has no GGUF file: look for a repository of the same model with GGUF in its name")
    wanted = pattern or "*q4_k_m*"
    chosen = [path for path in firsts if fnmatch.fnmatch(path.lower(), wanted.lower())]
    chosen = chosen or [path for path in firsts if pattern and pattern.lower() in path.lower()]
    if not chosen and not pattern and len(firsts) == 1:
        chosen = firsts
    if len(chosen) != 1:
        what = "several match" if chosen else "none matches"
        raise error(
            f"{repo} has {len(firsts)} models and {what} {wanted}: choose with {repo}:PATTERN ({_some(chosen or firsts)})"
        )
    found = [_hub_model(client, repository, revision, chosen[0], sha256)]
    # As llama-server's --hf-repo, which takes a projector with the model; the one that loses least
    projectors.sort(key=lambda path: ("f16" not in path.lower().replace("bf16", ""), path))
    beside = [_hub_model(client, repository, revision, path, None) for path in projectors[:1]]
    return [*found, *(each for each in beside if each.key)]


def _hub_model(
    client: Client, repository: huggingface.HubContents, revision: str, first: str, sha256: str | None
) -> Found:
    names = _parts(first)
    found = []
    for name in names:
        if name not in repository.files:
            raise error(f"{repository.repo} has no {name}: a model in {len(names)} parts needs all of them")
        found.append(huggingface.url(repository.repo, revision, name))
    return _found(found, sha256, _remote_header(client, found[0], *huggingface.request(found[0])))


def _remote_header(
    client: Client, url: str, address: str, headers: Mapping[str, str], name: str | None = None
) -> gguf.Header:
    """The header of a file that `url` names and `address` gives here."""
    try:
        found = head.read(address, headers, client, name or urlsplit(url).path.rpartition("/")[2])
    except HttpError as problem:
        hint = {
            401: "it is gated, private or not there: set HF_TOKEN",
            403: "it is gated: accept its terms",
            404: "check the name",
        }
        more = hint.get(problem.status or 0)
        raise error(f"{url} cannot be read: {problem.message}{f' ({more})' if more else ''}") from None
    if found.header is None:
        raise error(f"{url} {found.unfit or 'has a header that is too long'}")
    return _usable(found.header, url)


def _header(file: Path) -> gguf.Header:
    try:
        header = judge.of_file(file, is_gguf=True)
    except judge.UnfitError as bad:
        raise error(f"{file} {bad}") from None
    except OSError as failed:
        raise error(f"{file} cannot be read: {failed}") from None
    assert header is not None  # noqa: S101 (asked for)
    return _usable(header, str(file))


def _usable(header: gguf.Header, what: str) -> gguf.Header:
    if header.role not in (Role.MODEL, *KEYS):
        raise error(f"{what} is {header.role.words}: there is nothing to serve")
    return header


def _parts(name: str) -> list[str]:
    """All files of a model, given one of them."""
    try:
        return shards(first_shard(name))
    except sources.RefusedError as refused:
        raise error(f"{name} {refused}") from None


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:8]) + (" …" if len(paths) > 8 else "")


def _readable(text: str) -> sources.Source:
    """The source that an aikitfile means by the text."""
    try:
        return sources.read(text)
    except sources.RefusedError as refused:
        raise error(f"--model {text!r} {refused}") from None


def render(models: Sequence[Found], name: str | None, runtime: str | None) -> str:
    """The aikitfile. Raises AikitError where it would not be a valid one."""
    from aikit_nix.aikitfile import localai_config, parser

    lines = ["apiVersion: v1alpha1"]
    if runtime:
        lines.append(f"runtime: {runtime}")
    lines.append("models:")
    config: list[str] = []
    served = [model for model in models if model.key is None]
    companions = [model for model in models if model.key]
    if companions and len(served) != 1:
        raise error(f"{companions[0].file} is {companions[0].header.role.words}: give that one model, too")
    for model in [*served, *companions]:
        called = name if name and [model] == served else _name(model)
        called = called if model in served else f"{_name(served[0])}-{model.header.role}"
        for number, (where, sha256) in enumerate(model.files):
            lines += [f"  - name: {_scalar(called)}", f"    source: {_scalar(where)}"]
            if sha256:
                lines.append(f'    sha256: "{sha256}"')
            if (
                number == 0
                and model in served
                and not model.header.chat_template
                and model.header.architecture not in _EMBEDDERS
            ):
                lines += ["    promptTemplates:", f"      - name: {_scalar(called)}", '        template: "{{.Input}}"']
        if model in served:
            config += _entry(called, model)
        else:
            config.append(f"  {model.key}: {_scalar(model.file)}")
            config += [f"  lora_base: {_scalar(served[0].file)}"] if model.key == "lora_adapter" else []
    text = "\n".join([*lines, "config: |", *(f"  {line}" for line in config)]) + "\n"
    try:
        aikitfile, _ = parser.parse(text.encode(), "the new aikitfile")
        if written := localai_config.read(aikitfile):
            written.require()
    except AikitError as invalid:
        raise error(f"no aikitfile can be made of this: {invalid.diagnostics[0].message}") from None
    return text


def _entry(name: str, model: Found) -> list[str]:
    header = model.header
    embeds = header.architecture in _EMBEDDERS
    entry = [f"- name: {_scalar(name)}", "  backend: llama-cpp", "  parameters:", f"    model: {_scalar(model.file)}"]
    if not embeds and not header.chat_template:
        entry.append(f"    max_tokens: {_BASE_TOKENS} # it finds no end by itself; a request may ask for more")
    if header.context_length:
        trained = f" # the model was trained with {header.context_length}" if header.context_length > _CONTEXT else ""
        entry.append(f"  context_size: {min(header.context_length, _CONTEXT)}{trained}")
    if embeds:
        entry.append("  embeddings: true")
    elif header.chat_template:
        entry += ["  template:", "    use_tokenizer_template: true # the chat template inside the GGUF"]
    else:
        entry += ["  template: # the GGUF has no chat template: the model continues the text that it is given"]
        entry += [f"    {key}: {_scalar(name)}" for key in ("chat", "completion")]
    return entry


def _name(model: Found) -> str:
    """The GGUF's own name, as an image's and a model's name may be written."""
    said = model.header.name or model.file.removesuffix(".gguf")
    return re.sub(r"[^a-z0-9.]+", "-", said.lower()).strip("-.")[:80] or "model"


def _scalar(text: str) -> str:
    """A YAML scalar: bare where that is plain, else in double quotes (JSON is YAML)."""
    if re.fullmatch(r"[A-Za-z][\w./:?=&%+~-]*[\w]", text, re.ASCII) and not re.fullmatch(
        r"(?i)true|false|yes|no|on|off|null|y|n", text
    ):
        return text
    escaped = (c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))
    return "".join(escaped)
