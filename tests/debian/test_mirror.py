"""Where this machine has Debian's packages from."""

from __future__ import annotations

from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.debian import mirror as debian_mirror
from support.command import aikit_nix

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://one.example/debian/ http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
THIRD_PARTY = "deb [arch=amd64 signed-by=/etc/k.gpg] https://third.example/repository bookworm main\n"


@pytest.mark.parametrize(
    ("files", "mirror"),
    [
        ({"sources.list.d/debian.sources": DEB822}, "http://one.example/debian"),
        ({"sources.list": "deb http://one.example/debian bookworm main # it\n"}, "http://one.example/debian"),
        (
            {"sources.list": "deb [ arch=amd64 ] http://one.example/debian/ sid main contrib"},
            "http://one.example/debian",
        ),
        ({"sources.list": THIRD_PARTY, "sources.list.d/x.sources": DEB822}, "http://one.example/debian"),
        ({"sources.list": THIRD_PARTY}, None),
        ({"sources.list": "deb http://one.example/ubuntu noble main\n"}, None),
        ({"sources.list": "# deb http://one.example/debian bookworm main\ndeb-src http://a/debian sid main"}, None),
        ({"sources.list": "deb cdrom:[Debian]/debian bookworm main\ndeb\n"}, None),
        ({"sources.list.d/x.sources": f"Enabled: no\n{DEB822.partition('#')[2].partition(chr(10))[2]}"}, None),
        ({"sources.list.d/x.sources": "\0\xff"}, None),
        (
            {"sources.list": "deb http://[MIRROR]/debian sid main", "sources.list.d/x.sources": DEB822},
            "http://one.example/debian",
        ),
        ({}, None),
    ],
)
def test_the_mirror_is_apts(
    files: dict[str, str], mirror: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(debian_mirror.MIRROR, raising=False)
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert debian_mirror.machine_mirror(tmp_path) == mirror


def test_the_environment_names_the_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(debian_mirror.MIRROR, " http://a.example/debian/  http://b.example/debian")
    assert debian_mirror.mirrors() == ["http://a.example/debian/", "http://b.example/debian"]
    assert debian_mirror.mirrors(["http://c.example/debian"]) == ["http://c.example/debian"]


def test_a_machine_without_a_mirror_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(debian_mirror.MIRROR, raising=False)
    monkeypatch.setattr(debian_mirror, "machine_mirror", lambda: None)
    with pytest.raises(AikitError, match="no Debian mirror"):
        debian_mirror.mirrors()


@pytest.mark.parametrize(
    "mirror", ["http://me:s3cret@a.example/debian", "http://s3cret@a.example", "https://a:s3cret@a/"]
)
def test_a_mirror_with_a_password_is_refused_and_not_shown(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(debian_mirror.MIRROR, raising=False)
    done = aikit_nix("debian-lock", "--mirror", mirror, cwd=tmp_path)
    assert done.returncode == 1
    assert "a password in its address cannot be used" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    (tmp_path / "sources.list").write_text(f"deb {mirror} bookworm main\n")
    assert debian_mirror.machine_mirror(tmp_path) is None
    monkeypatch.setenv(debian_mirror.MIRROR, f"http://b.example/debian {mirror}")
    with pytest.raises(AikitError, match="password") as refused:
        debian_mirror.mirrors()
    assert "s3cret" not in str(refused.value)
