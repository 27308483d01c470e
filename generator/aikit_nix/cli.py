"""The command line's root: which module has which command, and what becomes of errors.

A command's module is imported when the command is used: `gen` must not pay for what `push` needs.
"""

from __future__ import annotations

import errno
import gc
import signal
import sys
from importlib import import_module
from typing import NamedTuple

import click

from aikit_nix.base import console
from aikit_nix.base.console import Verbosity
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error


class _Command(NamedTuple):
    """The module below aikit_nix.commands that has a command, and an example for its help."""

    module: str
    example: str


# In the order of the help.
_GROUPS = {
    "Start": {
        "init": _Command(
            "aikitfile", "init --model huggingface://Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf"
        ),
        "check": _Command("aikitfile", "check"),
        "lock": _Command("lock", "lock"),
        "gen": _Command("gen", "gen --packages debian --runtime avx2"),
        "build": _Command("gen", "build --packages debian"),
        "run": _Command("image", "run --chat"),
    },
    "Ship": {
        "load": _Command("image", "load --with podman"),
        "push": _Command("image", "push registry.example.com/me/llama:1"),
        "k8s": _Command("kubernetes", "k8s registry.example.com/me/llama:1"),
    },
    "Prove": {
        "inspect": _Command("image", "inspect registry.example.com/me/llama:1"),
        "diff": _Command("image", "diff before.tar after.tar"),
        "verify": _Command("proof", "verify registry.example.com/me/llama:1"),
        "reproduce": _Command("proof", "reproduce --output here.json"),
        "sbom": _Command("proof", "sbom"),
        "provenance": _Command("proof", "provenance"),
        "attest": _Command("proof", "attest registry.example.com/me/llama:1"),
        "sign": _Command("proof", "sign registry.example.com/me/llama:1 --key cosign.key"),
    },
    "Offline": {
        "fetch": _Command("lock", "fetch"),
        "bundle": _Command("hermetic", "bundle /media/usb/llama"),
        "unbundle": _Command("hermetic", "unbundle /media/usb/llama"),
        "ci": _Command("hermetic", "ci github --install git+https://example.com/me/aikit-nix"),
    },
    "More": {
        "explain": _Command("aikitfile", "explain"),
        "fmt": _Command("aikitfile", "fmt --check"),
        "schema": _Command("aikitfile", "schema"),
        "debian-lock": _Command("maintain", "debian-lock --check"),
        "help": _Command("help", "help push"),
        "version": _Command("help", "version"),
    },
}
# What follows `--` behind these is Nix's.
_NIX = frozenset(("build", "load", "push", "verify", "reproduce"))
_COMMANDS = {name: command for group in _GROUPS.values() for name, command in group.items()}


class _Commands(click.Group):
    """Loads commands when they are asked for, and gives each the options that all have."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"aikit_nix.commands.{_COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        command.epilog = f"\b\nExample: aikit-nix {_COMMANDS[cmd_name].example}"
        if not any(parameter.name == "verbose" for parameter in command.params):
            command.params += _VERBOSITY
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, _COMMANDS))
        for group, names in _GROUPS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(group):
                formatter.write_dl(
                    [(name.ljust(widest), command.get_short_help_str(200)) for name, command in commands if command]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in _NIX and "--" in args:
            from aikit_nix.nix import command

            at = args.index("--")
            command.arguments, args = tuple(args[at + 1 :]), args[:at]
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            from aikit_nix.aikitfile.schema import guess

            raise click.UsageError(unknown.message.rstrip(".") + guess(args[0], _COMMANDS), unknown.ctx) from None


def _be(level: Verbosity, name: str, short: str, what: str) -> click.Parameter:
    def callback(_: click.Context, __: click.Parameter, value: bool) -> None:
        if value:
            console.verbosity = level

    return click.Option([short, name], is_flag=True, expose_value=False, callback=callback, help=what)


_VERBOSITY = [
    _be(Verbosity.VERBOSE, "--verbose", "-v", "Show each command that is run and each request."),
    _be(Verbosity.QUIET, "--quiet", "-q", "Print errors and warnings only."),
]


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and (command := cli.get_command(context, "version")):
        context.invoke(command)
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, params=[*_VERBOSITY])
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="The same as the command `version`.",
)
def cli() -> None:
    """Compile an aikitfile into a Nix flake whose `nix build` emits an OCI image."""


def main() -> None:
    """Entry point. Exit status: 0 done, 1 something that the user can mend, 2 a wrong command line, 130 interrupted,
    143 and 129 terminated and hung up.
    """
    # Most commands are too short for it: collecting garbage costs more than it frees
    gc.set_threshold(100_000)
    console.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the latter
            signal.signal(number, _terminated)
    try:
        try:
            cli.main(sys.argv[1:] or ["--help"], prog_name="aikit-nix", standalone_mode=False)
        except SystemExit:
            console.flush()  # or Python tries, as it ends, and says what went wrong in its own words
            raise
        except OSError as failed:
            if failed.filename is not None:
                raise error(f"{failed.filename}: {(failed.strerror or str(failed)).lower()}") from None
            if failed.errno == errno.ENOENT:  # getcwd(3)
                raise error("the current folder is not there any more: go into another one") from None
            console.flush()  # what click itself could not print (its help, the version) stays there, and is said so
            raise error(f"cannot read or write: {(failed.strerror or str(failed)).lower()}") from None
        console.flush()
    except AikitError as exception:
        console.report(exception.diagnostics)
        sys.exit(1)
    except click.ClickException as exception:
        console.report([Diagnostic(Severity.ERROR, "usage", exception.format_message())])
        sys.exit(exception.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.say("interrupted", err=True)
        sys.exit(130)


def _terminated(number: int, _: object) -> None:
    """Leave as for an error: programs that run are ended, temporary files removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
