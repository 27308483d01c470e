"""How Nix is set up on this machine, and what it lacks there. This needs nothing but Python, for `make` begins with it.

Three kinds of machine: root with Debian's bare nix-bin (no daemon, no build users), a user who owns /nix,
and a multi-user installation with a daemon, whose settings are its administrator's.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path

_STORE = Path("/nix")
_DAEMON_SOCKET = _STORE / "var/nix/daemon-socket/socket"
# Where installers put Nix; shells that no profile script prepared (sudo, make from a service) do not look
# there.
_PLACES = ("~/.nix-profile/bin", "/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin")


def path() -> str:
    """PATH, with Nix on it wherever it is installed."""
    places = [os.environ.get("PATH", os.defpath)]
    if not shutil.which("nix"):
        folders = [Path(place).expanduser() for place in _PLACES]
        places += [str(folder) for folder in folders if os.access(folder / "nix", os.X_OK)]
    return os.pathsep.join(places)


def daemon() -> bool:
    """Whether Nix here works through a daemon (it does when it cannot write the store itself)."""
    if os.environ.get("NIX_REMOTE"):
        return os.environ["NIX_REMOTE"] == "daemon"
    return not os.access(_STORE / "var/nix", os.W_OK) and _DAEMON_SOCKET.parent.is_dir()


def lacks_store() -> bool:
    """Whether there is no Nix store yet, no daemon to make it, and this user may not make it."""
    return not (_own_or_remote() or (_STORE / "store").exists() or os.access(_STORE, os.W_OK))


def problem() -> str | None:
    """Why Nix cannot build here, and what to do about it; None when it can."""
    if not shutil.which("nix", path=path()):
        return "`nix` is missing: install Debian's nix-bin, or see https://nixos.org/download"
    if daemon() and not os.access(_DAEMON_SOCKET.parent, os.X_OK):
        user = pwd.getpwuid(os.getuid()).pw_name
        return f"you may not use the Nix daemon: run `sudo adduser {user} nix-users`, then log in again"
    if daemon() and not os.access(_DAEMON_SOCKET, os.W_OK):
        return "the Nix daemon does not run: start it (`sudo systemctl start nix-daemon`)"
    if lacks_store():
        return f"there is no Nix store: run `sudo install -d -o {os.getuid()} -g {os.getgid()} {_STORE}`"
    if not _own_or_remote() and not os.access(_STORE / "store", os.W_OK) and (_STORE / "store").exists():
        return "the Nix store is root's and no Nix daemon runs: start it (Debian: nix-setup-systemd), or be root"
    return None


def has_build_users() -> bool:
    """Whether Nix can build as other users than root, whose group it takes for granted where root is the one who builds."""
    try:
        return bool(grp.getgrnam("nixbld").gr_mem)
    except KeyError:
        return False


def _own_or_remote() -> bool:
    return os.geteuid() == 0 or daemon() or bool(os.environ.get("NIX_REMOTE"))
