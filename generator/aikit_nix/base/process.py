"""The one place that starts other programs: Nix's, gpgv, cosign, container engines and the like."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aikit_nix.base import console
from aikit_nix.base.errors import AikitError, error
from aikit_nix.base.redact import without_secrets

_STDERR_LINES = 8
_BUSY = re.compile(rb"SQLite database '.*' is busy")
_BUSY_WAITS = (0.2, 0.4, 0.8, 1.6, 3.2)  # seconds


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    check: bool = True,
    secret: bool = False,
    timeout: float | None = None,
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    `env` is added to the environment. Raises AikitError when the program is missing, takes more than `timeout` seconds or
    (with `check`) fails, with the last lines of its stderr, unless those are `secret`.
    """
    done = _finish(argv, cwd=cwd, env=env, stdin=stdin, timeout=timeout)
    if check and done.returncode != 0:
        raise failure(argv, done.returncode, "" if secret else done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def succeeds(argv: Sequence[str | Path], *, cwd: Path | None = None) -> bool:
    """Whether a program ends with status 0. Raises AikitError when it is missing."""
    return _finish(argv, cwd=cwd).returncode == 0


def stderr(argv: Sequence[str | Path]) -> str:
    """What a program wrote to stderr, whether it failed or not. Raises AikitError when it is missing."""
    return _finish(argv).stderr.decode(errors="replace")


@contextmanager
def start(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    own_group: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program, for what is read or written while it runs; None passes our own stream on.

    It inherits `pass_fds`. In its own group it does not get the terminal's Ctrl-C: who started it ends it.
    It is ended when the block is left by an exception. Raises AikitError when the program is missing.
    """
    try:
        console.trace(shlex.join(map(str, argv)))
        process = subprocess.Popen(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            process_group=0 if own_group else None,
        )
    except (FileNotFoundError, PermissionError):
        raise missing(Path(argv[0]).name) from None
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


def failure(argv: Sequence[str | Path], status: int, said: str) -> AikitError:
    """The error for a program that ended with a status other than 0: the last lines of what it said."""
    tail = without_secrets(said).strip().splitlines()[-_STDERR_LINES:]
    return error(f"`{Path(argv[0]).name}` failed with status {status}: " + " | ".join(tail), code="subprocess")


def missing(program: str) -> AikitError:
    """The error for a program that is not on PATH."""
    where = "apt-get install nix-bin, or https://nixos.org/download" if program.startswith("nix") else "install it"
    return error(f"`{program}` cannot be run: it is not on PATH ({where})", code="program-missing")


def _finish(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Without a daemon each Nix program opens the store's database itself, and gives up where another just closes it as the last
    (https://sqlite.org/wal.html, "Sometimes queries return SQLITE_BUSY"). It has done nothing then: it is started again.
    """
    console.trace(shlex.join(map(str, argv)))

    def once() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            timeout=timeout,
        )

    try:
        done = once()
        for seconds in _BUSY_WAITS:
            if done.returncode == 0 or not _BUSY.search(done.stderr):
                break
            time.sleep(seconds)
            done = once()
        return done
    except subprocess.TimeoutExpired:
        raise error(f"`{Path(argv[0]).name}` was not done after {timeout:g} s", code="subprocess") from None
    except (FileNotFoundError, PermissionError):
        raise missing(Path(argv[0]).name) from None
