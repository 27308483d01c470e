"""How llama-server is started for an aikitfile: arguments for one model, presets for several.

Of an option that is given twice the last counts, so a user's arguments (`docker run IMAGE --port 18080`) win over the
image's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from aikit_nix.aikitfile.reader import short
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic, Severity
from aikit_nix.base.redact import printable
from aikit_nix.engines import Launch
from aikit_nix.engines.llama_server import capacity
from aikit_nix.engines.llama_server.translation import ServedModel, Translation, fits_preset
from aikit_nix.sources.gguf import Facts

PRESETS_PATH = "/models.ini"

# AIKit's images listen on this port too. The image is complete, so nothing is ever downloaded.
_BASE_ARGS = ("--host", "0.0.0.0", "--port", "8080", "--offline")  # noqa: S104

# Metrics cost nothing and say nothing of what was asked; of other origins' pages only those of this machine may ask, where
# llama-server answers any, with credentials. In the environment, as older servers pass over what they do not know.
_OPERATING = {"LLAMA_ARG_CORS_ORIGINS": "localhost", "LLAMA_ARG_ENDPOINT_METRICS": "1"}


def launch(aikitfile: Aikitfile, headers: Mapping[str, Facts], *, drop: bool = False) -> Launch:
    """llama-server's arguments. `drop` leaves out, with a warning, what changes the answers and only LocalAI does.

    Raises AikitError where the aikitfile's config cannot be served.
    """
    translation = Translation(aikitfile, headers, drop=drop)
    models = translation.models()
    several = len(models) != 1
    if errors := [*translation.errors, *_unfit(models, several=several)]:
        raise AikitError(*errors)
    args = [*_BASE_ARGS, *(["--verbose"] if aikitfile.debug else [])]
    files = dict(translation.templates)
    if several:
        # Router mode: one process a model, started when it is first asked for.
        args += ["--models-preset", PRESETS_PATH]
        loaded = {name.value for name in aikitfile.load_to_memory}
        files[PRESETS_PATH] = "\n".join(_section(model, load=model.name in loaded) for model in models)
    else:
        args += ["--alias", ",".join([models[0].name, *translation.aliases])]
        for option, value in models[0].options:
            args += [f"--{option}"] if value is None else [f"--{option}", value]
    memory, cache = capacity.plan(aikitfile, headers, models)
    return Launch(
        tuple(args),
        env={**capacity.environment(cache), **_OPERATING},
        files=files,
        warnings=tuple(translation.warnings),
        memory=memory,
    )


def _section(model: ServedModel, *, load: bool) -> str:
    lines = [f"{option} = {'true' if value is None else value}\n" for option, value in model.options]
    lines += ["load-on-startup = true\n"] if load else []
    return f"[{model.name}]\n" + "".join(lines)


def _unfit(models: list[ServedModel], *, several: bool) -> Iterator[Diagnostic]:
    """Names and values that llama-server would read as something else."""

    def refused(model: ServedModel, message: str) -> Diagnostic:
        return Diagnostic(Severity.ERROR, "config", printable(f"config {model.name}: {message}"), model.at)

    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            yield refused(model, "there is a model of that name already: rename one")
        seen.add(model.name)
        if not several:
            if "," in model.name:
                yield refused(model, "llama-server takes a comma for two names: rename it")
            continue
        # A preset is lines of an INI file, where `;` and `#` begin comments; what stands behind `:` is a tag
        # that is written in capitals there.
        if not re.fullmatch(r"[^\s\[\];#*:\x00-\x1f\x7f]([^\[\];#*:\x00-\x1f\x7f]*\S)?", model.name):
            yield refused(model, "of several models this cannot be the name of one: use letters, digits, `.`, `_`, `-`")
        for option, text in model.options:
            if text is not None and not fits_preset(text):
                yield refused(
                    model,
                    f"the {option} `{short(text)}` cannot be a setting of one of several models: no `;`, no `#`, no line"
                    " break, no blank around it",
                )
