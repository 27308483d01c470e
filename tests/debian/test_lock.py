"""The lock of Debian packages: renewed, checked, read."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.debian import lock as debian
from aikit_nix.debian import mirror as debian_mirror
from support.command import aikit_nix
from support.debian_archive import DATE, ENGINE, INDEX, TOOLS, Archive, renew, stanza

OFFLINE = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}  # but for this machine

# --- Renewing


GPUS = {
    "contrib/binary-amd64": stanza("libggml0-backend-cuda", "1-1", "libcublas99, libcuda1 (>= 440) | x", "contrib"),
    "non-free/binary-amd64": stanza("libcublas99", "1-1", "llama.cpp-tools", "non-free"),
}


def test_a_lock_follows_the_signed_index(archive: Archive, tmp_path: Path) -> None:
    lock = renew(archive)
    assert (lock.suite, lock.date) == ("sid", "2026-10-30T08:08:01Z")
    assert lock.snapshot == "20261030T200801Z"
    assert list(lock.architectures) == ["amd64", "arm64"]
    for architecture in lock.architectures.values():
        assert architecture.engine == ENGINE
        assert architecture.accelerators == {}
        assert architecture.tools == tuple(sorted(TOOLS))
        assert architecture.packages["libfuture99"].version == "3.0-1"

    lock.write(tmp_path / "new/lock.json")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["lock.json"]
    read = debian.DebianLock.read(tmp_path / "new/lock.json")
    assert read.to_json() == lock.to_json() == renew(archive).to_json()


def test_what_a_gpu_needs_is_a_group_of_its_own(archive: Archive) -> None:
    archive.publish(INDEX, more=GPUS)
    lock = renew(archive)
    assert lock.architectures["arm64"].accelerators == {}
    amd64 = lock.architectures["amd64"]
    assert amd64.accelerators == {"cuda": ("libcublas99", "libggml0-backend-cuda")}
    assert [p.name for p in amd64.image("cuda")] == [*ENGINE, "libcublas99", "libggml0-backend-cuda"]
    assert [p.name for p in amd64.image("avx2")] == list(ENGINE)
    written = json.loads(lock.to_json())["architectures"]["amd64"]["packages"]
    components = {name: entry["component"] for name, entry in written.items() if entry["component"] != "main"}
    assert components == {"libcublas99": "non-free", "libggml0-backend-cuda": "contrib"}


def test_an_expired_index_is_refused_unless_told(archive: Archive) -> None:
    archive.publish(INDEX, valid=timedelta(days=-3))
    with pytest.raises(AikitError, match=r"30 October 2026 and was valid until .*--allow-older"):
        renew(archive)
    _, warnings = debian.renew(archive.mirror, keyring=archive.keyring, allow_older=True)
    assert [warning.code for warning in warnings] == ["old-index"]


def test_a_step_back_is_refused_unless_told(archive: Archive) -> None:
    pinned = DATE + timedelta(minutes=1)
    with pytest.raises(AikitError, match=r"older than the packages that are pinned now .*--allow-older"):
        debian.renew(archive.mirror, pinned, keyring=archive.keyring)
    _, warnings = debian.renew(archive.mirror, pinned, keyring=archive.keyring, allow_older=True)
    assert [warning.code for warning in warnings] == ["old-index"]
    assert debian.renew(archive.mirror, DATE, keyring=archive.keyring)[1] == ()


def test_the_date_of_a_lock_is_read_whatever_its_format(tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    assert debian.DebianLock.date_of(file) is None
    for text in ("", "[]", "{}", '{"date": 3}', '{"date": "2026-10-30"}', "[" * 100_000):
        file.write_text(text)
        assert debian.DebianLock.date_of(file) is None
    file.write_text('{"date": "2026-10-30T08:08:01Z"}')
    assert debian.DebianLock.date_of(file) == DATE
    os.mkfifo(tmp_path / "pipe")  # nobody will ever write to it
    assert debian.DebianLock.date_of(tmp_path / "pipe") is None


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (INDEX.replace("Package: patchelf", "Package: patcheld"), "what it needs .patchelf"),
        (INDEX.replace("pool/main/p/patch", "../../etc/p/patch"), "cannot be read: patchelf"),
        (INDEX.replace("pool/main/p/patch", "pool/main/../../patch"), "cannot be read: patchelf"),
        (INDEX.replace("pool/main/p/patch", "pool/other/patch"), "cannot be read: patchelf"),
        (INDEX.replace("Size: 8", "Size: huge"), "cannot be read: patchelf"),
        (INDEX.replace("Size: 8", "Size: -8"), "cannot be read: patchelf"),
        (INDEX.replace("Version: 1.0-1", "Version: x:1", 1), "cannot be read: python3-minimal"),
        (INDEX.replace("Version: 1.0-1", f"Version: {'9' * 5000}:1", 1), "cannot be read: python3-minimal"),
        (INDEX.replace("(>= 3)", "(>= x:1)"), "dependency that cannot be read"),
        ("", "cannot give"),
    ],
)
def test_an_index_that_does_not_do_is_refused(archive: Archive, index: str, message: str) -> None:
    archive.publish(index)
    archive.publish(index, "testing", codename="next")
    with pytest.raises(AikitError, match=message):
        renew(archive)


def test_testing_stands_in_for_a_sid_that_is_not_whole(archive: Archive) -> None:
    archive.publish(INDEX.replace("Package: libfuture99", "Package: libfuture100"))
    archive.publish(INDEX, "testing", codename="next")
    lock, warnings = debian.renew(archive.mirror, keyring=archive.keyring)
    assert lock.suite == "next"
    assert ["libfuture99" in str(warning) for warning in warnings] == [True]
    assert str(warnings[0]).startswith("warning: ")


# --- What is still there


def offer(archive: Archive, lock: debian.DebianLock, *but: str) -> None:
    for pinned in lock.packages():
        if pinned.name not in but:
            archive.server.files[f"/debian/{pinned.filename}"] = b"x" * pinned.size


@pytest.fixture
def no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "SNAPSHOT", "http://127.0.0.1:1/snapshot")


@pytest.mark.usefixtures("no_snapshot")
def test_what_no_mirror_has_is_missing(archive: Archive) -> None:
    lock = renew(archive)
    offer(archive, lock, "patchelf")
    packages = lock.architectures["amd64"].packages
    archive.server.files[f"/debian/{packages['busybox-static'].filename}"] += b"changed"
    gone = debian.missing(lock, ["http://127.0.0.1:1/debian", archive.mirror])
    assert [package.name for package in gone] == ["busybox-static", "patchelf"]
    assert {request.method for request in archive.server.requests[-6:]} == {"HEAD"}


def test_the_snapshot_archive_counts(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = renew(archive)
    monkeypatch.setattr(debian, "SNAPSHOT", f"{archive.server.url}/snapshot")
    offer(archive, lock, "patchelf")
    assert [package.name for package in debian.missing(lock, [archive.mirror])] == ["patchelf"]
    patchelf = lock.architectures["amd64"].packages["patchelf"]
    archive.server.files[f"/snapshot/{lock.snapshot}/{patchelf.filename}"] = b"x" * patchelf.size
    assert debian.missing(lock, [archive.mirror]) == []


@pytest.mark.usefixtures("no_snapshot")
def test_the_command_checks_and_renews(archive: Archive, tmp_path: Path) -> None:
    archive.publish(INDEX, date=datetime.now(UTC))
    done = aikit_nix("debian-lock", "--mirror", archive.mirror, cwd=tmp_path)
    assert done.returncode == 1
    assert "not signed by a key of" in done.stderr
    assert list(tmp_path.iterdir()) == []
    renew(archive).write(tmp_path / "lock.json")
    check = ["debian-lock", "--check", "-o", "lock.json", "--mirror"]
    done = aikit_nix(*check, archive.mirror, cwd=tmp_path, env=OFFLINE)
    assert done.returncode == 1
    assert "no mirror has base-files 1.0-1, " in done.stderr
    assert "aikit-nix debian-lock" in done.stderr
    done = aikit_nix(*check, "http://127.0.0.1:1/debian", cwd=tmp_path, env=OFFLINE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:1/debian and http://snapshot.debian.org/archive/debian/")
    assert "cannot be reached" in done.stderr
    assert "patchelf" not in done.stderr


@pytest.mark.usefixtures("no_snapshot")
def test_the_command_says_how_old_a_lock_is(archive: Archive, tmp_path: Path) -> None:
    archive.publish(INDEX, date=datetime.now(UTC) - timedelta(days=3, hours=1))
    lock = renew(archive)
    lock.write(tmp_path / "lock.json")
    offer(archive, lock)
    done = aikit_nix("debian-lock", "--check", "-o", "lock.json", "--mirror", archive.mirror, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all packages of lock.json can be had: ")
    assert ", 3 days old" in done.stdout


# --- The lock file


ARCHITECTURE: dict[str, object] = {"engine": [], "accelerators": {}, "tools": [], "packages": {}}
LOCK = {
    "suite": "sid",
    "date": "2026-10-30T08:08:01Z",
    "snapshot": "20261030T200801Z",
    "architectures": {"amd64": ARCHITECTURE, "arm64": ARCHITECTURE},
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"suite": "sid", "date": "", "snapshot": "", "engine": ["a"], "tools": [], "packages": {}}',
        json.dumps(LOCK | {"suite": "${x}"}),
        json.dumps(LOCK | {"snapshot": "../x"}),
        json.dumps(LOCK | {"architectures": {"amd64": ARCHITECTURE}}),
        json.dumps(LOCK | {"architectures": {"amd64": ARCHITECTURE | {"engine": ["a"]}, "arm64": ARCHITECTURE}}),
        json.dumps(LOCK | {"architectures": {"amd64": ARCHITECTURE | {"packages": {"a": {}}}, "arm64": ARCHITECTURE}}),
        "[" * 100_000,
    ],
)
def test_what_is_no_lock_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(AikitError, match=r"lock\.json is no lock of Debian packages"):
        debian.DebianLock.read(tmp_path / "lock.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = debian.DebianLock.read(debian.LOCK)
    with pytest.raises(AikitError, match="cannot write"):
        lock.write(tmp_path / "file/lock.json")


def test_the_shipped_lock_is_whole() -> None:
    lock = debian.DebianLock.read(debian.LOCK)
    assert lock.to_json() == debian.LOCK.read_text()
    for name, architecture in lock.architectures.items():
        assert {"llama.cpp-tools", "libc6", "base-files", "ca-certificates"} <= set(architecture.engine)
        assert "busybox-static" in architecture.tools
        assert set(architecture.packages) == {package for group in architecture.groups() for package in group}
        assert set(architecture.accelerators) == {"cuda", "vulkan", *(["rocm"] if name == "amd64" else [])}
        outside = {package.name for package in architecture.packages.values() if package.component != "main"}
        assert outside == set(architecture.accelerators["cuda"])
        # What the image's programs are fetched as: under 15 MB.
        assert sum(package.size for package in architecture.image("cpu")) < 15_000_000


def test_no_mirror_is_named_in_the_shipped_files() -> None:
    """Anyone's mirror may be anywhere; only the permanent archive is at one place."""
    mirror = os.environ.get(debian_mirror.MIRROR) or debian_mirror.machine_mirror() or "http://nothing.invalid"
    host = mirror.split("/")[2].encode()
    for file in debian.LOCK.parent.rglob("*"):
        assert not file.is_file() or host not in file.read_bytes(), file
    json.loads(debian.LOCK.read_text())
