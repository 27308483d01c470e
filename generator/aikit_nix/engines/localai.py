"""What LocalAI is told: the config as it is, all settings in the environment.

AIKit writes `Entrypoint: local-ai` and the settings as `Cmd` (`--debug`, `--config-file=/config.yaml`), which
`docker run IMAGE --address :9090` replaces: the models are gone. In the environment they stay, and subcommands
(`docker run IMAGE models list`) work too. LocalAI reads the same settings from both: core/cli/run.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from aikit_nix.aikitfile import localai_config
from aikit_nix.aikitfile.types import Aikitfile
from aikit_nix.base.errors import AikitError, Diagnostic
from aikit_nix.engines import CONFIG_PATH, Launch, companions
from aikit_nix.sources.gguf import Facts


def launch(aikitfile: Aikitfile, headers: Mapping[str, Facts]) -> Launch:
    """Raises AikitError where LocalAI would stop at the config, or serve a part of a model as a model."""
    env: dict[str, str] = {}
    warnings: tuple[Diagnostic, ...] = ()
    if aikitfile.debug:
        env["DEBUG"] = "true"
    if config := localai_config.read(aikitfile):
        entries = config.require()
        env["CONFIG_FILE"] = CONFIG_PATH
        problems = tuple(companions.misnamed(entries, headers))
        warnings = tuple(companions.unnamed(aikitfile, entries, headers, models=False))
    else:
        problems = tuple(companions.unserved(aikitfile, headers))
    if problems:
        raise AikitError(*problems)
    if aikitfile.load_to_memory:
        env["LOCALAI_LOAD_TO_MEMORY"] = ",".join(name.value for name in aikitfile.load_to_memory)
    return Launch(env=env, probe=("8080", "/readyz", "--address", "LOCALAI_ADDRESS"), warnings=warnings)
