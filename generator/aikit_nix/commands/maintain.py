"""What keeps pins current: `aikit-nix debian-lock`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from aikit_nix.base.console import report, say
from aikit_nix.base.errors import error


@click.command("debian-lock")
@click.option("--check", is_flag=True, help="Only say which pinned packages no mirror has any more.")
@click.option("--mirror", metavar="URL", help="A Debian mirror.  [default: AIKIT_DEBIAN_MIRROR, or apt's]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("debian-lock.json"),
    show_default=True,
    help="The lock to write; with --check the lock to look at, if it is there.",
)
@click.option("--allow-older", is_flag=True, help="Take an index that has expired, or is older than the lock's.")
def debian_lock(check: bool, mirror: str | None, output: Path, allow_older: bool) -> None:
    """Pin the Debian packages that a mirror has now.

    Its signed index says which.
    """
    from aikit_nix.debian import lock as debian
    from aikit_nix.debian import mirror as debian_mirror

    mirrors = debian_mirror.mirrors([mirror] if mirror else [])
    pinned = output if output.is_file() else debian.LOCK
    if check:
        if gone := debian.missing(debian.DebianLock.read(pinned), mirrors):
            names = ", ".join(f"{package.name} {package.version}" for package in gone)
            raise error(f"no mirror has {names} of {pinned}: pin what there is now with `aikit-nix debian-lock`")
        say(f"all packages of {pinned} can be had: {_age(pinned)}")
        return
    say(f"reading the index of {mirrors[0]}", err=True)
    lock, warnings = debian.renew(mirrors[0], debian.DebianLock.date_of(pinned), allow_older=allow_older)
    report(warnings)
    lock.write(output)
    say(f"pinned {len(lock.packages())} packages of {lock.suite} in {output}: {_age(output)}")
    say(f"next: aikit-nix gen --packages debian --debian-lock {shlex.quote(str(output))}")


def _age(lock: Path) -> str:
    from datetime import UTC, datetime

    from aikit_nix.debian.lock import DebianLock

    date = DebianLock.date_of(lock)
    return f"the index is of {date:%Y-%m-%d}, {(datetime.now(UTC) - date).days} days old" if date else "undated"
