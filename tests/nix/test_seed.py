"""The seed program: it opens an ar archive, where there is no other program yet."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base import data
from support import carried
from support.carried import SYSTEMS

SEED = data.NIX / "packages/debian/seed"
DATA = bytes(range(256)) * 1000

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the x86-64 program")


@pytest.fixture(scope="module", params=SYSTEMS)
def seed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return carried.runnable(SEED / f"{request.param}.txt", tmp_path_factory.mktemp("seed"), "seed")


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_texts_are_what_the_source_compiles_to(system: str) -> None:
    assert carried.is_what_compiles(SEED / f"{system}.txt", "packages/debian/seed/seed.c", "seed")


def ar(**members: bytes) -> bytes:
    archive = b"!<arch>\n"
    for name, content in members.items():
        archive += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(content))
        archive += content + b"\n" * (len(content) % 2)
    return archive


def run(seed: list[str], folder: Path, archive: bytes, member: str) -> subprocess.CompletedProcess[str]:
    (folder / "a").write_bytes(archive)
    argv: list[str | Path] = [*seed, folder / "a", member, folder / "out"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("member", ["first", "second", "third", "fourth.tar.xz"])
def test_a_member_of_an_archive_is_written(seed: list[str], tmp_path: Path, member: str) -> None:
    content = {"first": b"odd", "second": DATA, "third": b"", "fourth.tar.xz": DATA[:65536]}
    done = run(seed, tmp_path, ar(**content), member)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == content[member]


def test_a_name_may_end_with_a_slash(seed: list[str], tmp_path: Path) -> None:
    """As GNU's ar writes it; a .deb's has blanks."""
    assert run(seed, tmp_path, ar(**{"longer": b"1", "long/": b"2"}), "long").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"2"


# The next header would be this one again.
NEGATIVE = b"!<arch>\n%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (b"other", 0, 0, 0, b"100644", -60)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"", "is no ar archive"),
        (b"!<arch>\n", "has no data"),
        (b"PK\3\4xxxxxxxx", "is no ar archive"),
        (ar(other=b"x"), "has no data"),
        (ar(other=b"x")[:-1] + b"y" * 30, "has no data"),
        (ar(data=DATA)[:-5], "is cut short"),
        (ar(other=DATA)[:-5], "is cut short"),
        (ar(dat=b"", data2=b""), "has no data"),
        (NEGATIVE, "has a member of no size"),
    ],
)
def test_an_archive_without_the_member_is_an_error(
    seed: list[str], tmp_path: Path, archive: bytes, reason: str
) -> None:
    done = run(seed, tmp_path, archive, "data")
    assert (done.returncode, done.stderr) == (1, f"seed: {tmp_path}/a {reason}\n")


@pytest.mark.parametrize(("archive", "out"), [("nothing", "out"), ("a", "nothing/out")])
def test_files_that_are_not_there_are_errors(seed: list[str], tmp_path: Path, archive: str, out: str) -> None:
    (tmp_path / "a").write_bytes(ar(data=DATA))
    argv: list[str | Path] = [*seed, tmp_path / archive, "data", tmp_path / out]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = "nothing cannot be read" if archive == "nothing" else "nothing/out cannot be written"
    assert (done.returncode, done.stderr) == (1, f"seed: {tmp_path}/{said}\n")
