"""Where Debian's packages come from on this machine: what is said to aikit-nix, or to apt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aikit_nix.base.errors import error

MIRROR = "AIKIT_DEBIAN_MIRROR"  # URLs separated by blanks


def machine_mirror(apt: Path = Path("/etc/apt")) -> str | None:
    """What apt reads the main archive from."""
    sources = [source for file in _apt_files(apt) for source in _apt_sources(file)]
    candidates = [source for source in sources if source.is_main_archive()]
    return max(candidates, key=_Source.likeness).uri.rstrip("/") if candidates else None


def _has_password(mirror: str) -> bool:
    return re.match(r"[^/]*//[^/?#]*@", mirror) is not None


@dataclass(frozen=True)
class _Source:
    """One archive that apt reads packages from."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str

    def path(self) -> str | None:
        """None where the URI is none."""
        try:
            return urlsplit(self.uri).path.rstrip("/")
        except ValueError:
            return None

    def likeness(self) -> int:
        """How much says that this is Debian's archive: others use its suites' and components' names too."""
        return 2 * ("debian-archive-keyring" in self.signed_by) + (self.path() or "").endswith("/debian")

    def is_main_archive(self) -> bool:
        return (
            self.uri.startswith(("http://", "https://"))
            and not _has_password(self.uri)
            and "main" in self.components
            and "-" not in self.suite  # bookworm-security, bookworm-updates, bookworm-pgdg
            and (path := self.path()) is not None
            and not path.endswith("-security")
            and self.likeness() > 0
        )


def _apt_files(apt: Path) -> list[Path]:
    folder = apt / "sources.list.d"
    return [
        file
        for file in (apt / "sources.list", *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list")))
        if file.is_file()
    ]


def _apt_sources(file: Path) -> list[_Source]:
    """sources.list(5): the deb822 format, or one line an archive. What cannot be read is not there."""
    from aikit_nix.debian.index import stanzas

    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    if file.suffix == ".sources":
        for fields in stanzas(text):
            if (
                fields.get("enabled", "yes").lower() in ("no", "false", "0")
                or "deb" not in fields.get("types", "").split()
            ):
                continue
            found += [
                _Source(uri, suite, tuple(fields.get("components", "").split()), fields.get("signed-by", ""))
                for uri in fields.get("uris", "").split()
                for suite in fields.get("suites", "").split()
            ]
    for line in text.splitlines() if file.suffix == ".list" else ():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            found.append(_Source(match[2], match[3], tuple(match[4].split()), match[1] or ""))
    return found


def mirrors(given: Iterable[str] = ()) -> list[str]:
    """The mirrors to ask: those given, or AIKIT_DEBIAN_MIRROR's, or apt's. Raises AikitError if there is none."""
    if not (found := known(given)):
        raise error(f"this machine has no Debian mirror in /etc/apt: set {MIRROR} or --mirror (http://MIRROR/debian)")
    return found


def known(given: Iterable[str] = ()) -> list[str]:
    """The same, where none is no error. Raises AikitError for one with a password."""
    found = list(given) or os.environ.get(MIRROR, "").split()
    if not found and (own := machine_mirror()):
        found = [own]
    if any(map(_has_password, found)):
        raise error(
            "a mirror with a user or a password in its address cannot be used, as `nix build --impure` would write it where"
            " every user of this machine can read it: name one that needs none, or a proxy that adds it (http_proxy)"
        )
    return found
