"""The command line's root: which module has which command, and what becomes of errors.

A command's module is imported when the command is used: `gen` must not pay for what `push` needs.
"""

from __future__ import annotations

import errno
import gc
import signal
import sys
from importlib import import_module

import click

from aikit_nix import __version__
from aikit_nix.base import console
from aikit_nix.base.console import Verbosity
from aikit_nix.base.errors import AikitError, Diagnostic, Severity, error

# The module below aikit_nix.commands that has the command, in the order of the help.
_COMMANDS = {
    "init": "aikitfile",
    "check": "aikitfile",
    "explain": "aikitfile",
    "fmt": "aikitfile",
    "schema": "aikitfile",
    "man": "manual",
    "lock": "lock",
    "fetch": "lock",
    "gen": "gen",
    "build": "gen",
    "load": "image",
    "push": "image",
    "run": "image",
    "inspect": "image",
    "diff": "image",
    "k8s": "kubernetes",
    "verify": "proof",
    "reproduce": "proof",
    "sbom": "proof",
    "provenance": "proof",
    "attest": "proof",
    "sign": "proof",
    "sign-models": "proof",
    "bundle": "hermetic",
    "unbundle": "hermetic",
    "ci": "hermetic",
    "debian-lock": "maintain",
    "update-pins": "maintain",
}


class _Commands(click.Group):
    """Loads commands when they are asked for, and gives each the options that all have."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"aikit_nix.commands.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        if not any(parameter.name == "verbose" for parameter in command.params):
            command.params += _verbosity()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            from aikit_nix.aikitfile.schema import guess

            raise click.UsageError(unknown.message + guess(args[0], _COMMANDS), unknown.ctx) from None


def _verbosity() -> list[click.Parameter]:
    def set_to(level: Verbosity) -> click.Parameter:
        def callback(_: click.Context, __: click.Parameter, value: bool) -> None:
            if value:
                console.verbosity = level

        words = (["-v", "--verbose"], "Show each command that is run and each request.")
        if level is Verbosity.QUIET:
            words = (["-q", "--quiet"], "Print errors and warnings only.")
        return click.Option(words[0], is_flag=True, expose_value=False, callback=callback, help=words[1])

    return [set_to(Verbosity.VERBOSE), set_to(Verbosity.QUIET)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, params=_verbosity())
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Compile an aikitfile into a Nix flake whose `nix build` emits an OCI image."""


def main() -> None:
    """Entry point. Exit status: 0 done, 1 something that the user can mend, 2 a wrong command line, 130 interrupted,
    143 and 129 terminated and hung up.
    """
    # A process this short: collecting garbage costs more than it frees
    gc.disable()
    console.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the latter
            signal.signal(number, _terminated)
    try:
        try:
            cli.main(sys.argv[1:] or ["--help"], prog_name="aikit-nix", standalone_mode=False)
        except OSError as failed:
            if failed.filename is not None:
                raise error(f"{failed.filename}: {(failed.strerror or str(failed)).lower()}") from None
            if failed.errno == errno.ENOENT:  # getcwd(3)
                raise error("the current folder is not there any more: go into another one") from None
            if failed.errno in (
                errno.EPIPE,
                errno.ENOSPC,
                errno.EIO,
                errno.EBADF,
            ):  # click printed its own help or version
                raise console.unwritable(failed) from None
            raise
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
