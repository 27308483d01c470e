"""A mirror's signed index: what Debian did not sign is not believed, and nothing that a mirror says has no end."""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.debian import archive as debian_archive
from aikit_nix.debian import lock as debian
from aikit_nix.debian.index import Package
from aikit_nix.http import client as http
from support import file_server
from support.debian_archive import ENGINE, INDEX, Archive, renew


def test_an_archive_without_by_hash_is_read(archive: Archive) -> None:
    archive.publish(INDEX, by_hash=False)
    assert renew(archive).architectures["amd64"].engine == ENGINE


def test_a_changed_release_is_refused(archive: Archive) -> None:
    path = "/debian/dists/sid/InRelease"
    archive.server.files[path] = archive.server.files[path].replace(b"Origin: Test", b"Origin: Best")
    with pytest.raises(AikitError, match=r"not signed by a key of .*BADSIG"):
        renew(archive)


@pytest.mark.parametrize("text", [b"", b"Origin: Test\n", b"\xff\0<html>"])
def test_an_unsigned_release_is_refused(archive: Archive, text: bytes) -> None:
    archive.server.files["/debian/dists/sid/InRelease"] = text
    with pytest.raises(AikitError, match="not signed by a key of"):
        renew(archive)


@pytest.mark.skipif(not debian_archive.KEYRING.is_file(), reason="debian-archive-keyring is not installed")
def test_a_release_of_another_signer_is_refused(archive: Archive) -> None:
    with pytest.raises(AikitError, match=r"not signed by a key of .*NO_PUBKEY"):
        debian.renew(archive.mirror)


def test_a_missing_keyring_is_named(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(AikitError, match="apt-get install debian-archive-keyring"):
        debian.renew(archive.mirror, keyring=tmp_path / "none.gpg")


def test_a_changed_index_is_refused(archive: Archive) -> None:
    path = next(path for path in archive.server.files if "binary-amd64/by-hash" in path)
    archive.server.files[path] = lzma.compress(INDEX.replace("3.0-1", "3.0-9").encode())
    with pytest.raises(AikitError, match="not what the signed index says"):
        renew(archive)


def test_a_download_that_breaks_is_tried_again(archive: Archive) -> None:
    path = "/debian/dists/sid/InRelease"
    archive.server.failures[path] = [file_server.Failure(cut=10)]
    assert renew(archive).suite == "sid"
    archive.server.failures[path] = [file_server.Failure(cut=10), file_server.Failure(status=503)]
    with pytest.raises(AikitError, match="503"):
        renew(archive)


def test_an_index_of_another_suite_is_refused(archive: Archive) -> None:
    archive.publish(INDEX, "stable", codename="bookworm")
    files = archive.server.files
    files["/debian/dists/sid/InRelease"] = files["/debian/dists/stable/InRelease"]
    with pytest.raises(AikitError, match="of another suite"):
        renew(archive)


def test_a_mirror_without_the_suite_is_named() -> None:
    with file_server.serve() as server, pytest.raises(AikitError, match=r"InRelease answered 404.*--mirror"):
        debian.renew(f"{server.url}/ubuntu")
    with pytest.raises(AikitError, match="--mirror"):
        debian.renew("http://127.0.0.1:1/debian")
    with pytest.raises(AikitError, match="no http:// or https://"):
        debian.renew("file:///etc")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (file_server.Failure(endless=True), "more than 65,536 bytes"),
        (file_server.Failure(drip=0.2), "too slow"),
        (file_server.Failure(flood=b"HTTP/1.1 100 Continue\r\n\r\n"), "too slow|no sense|broke"),
        (file_server.Failure(flood=b"X: y\r\n"), "InRelease"),
        (file_server.Failure(raw=b"HTTP/1.1 huh\r\n\r\n"), "InRelease"),
        (file_server.Failure(raw=b"\xff" * 100), "InRelease"),
        (file_server.Failure(status=302, headers={"Location": "ftp://127.0.0.1/x"}), "only http"),
        (file_server.Failure(status=302, headers={"Location": "file:///etc/passwd"}), "only http"),
    ],
)
def test_nothing_that_a_mirror_says_has_no_end(
    archive: Archive, failure: file_server.Failure, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_archive, "_RELEASE_LIMIT", 1 << 16)
    monkeypatch.setattr(debian_archive, "_FOR_RELEASE", http.Timeouts(answer=1, attempts=2, first_wait=0))
    archive.server.failures["/debian/dists/sid/InRelease"] = [failure] * 2
    with pytest.raises(AikitError, match=message):
        renew(archive)


def test_a_message_that_unpacks_to_more_is_not_unpacked(archive: Archive) -> None:
    """gpgv would write the whole of it, whoever signed it."""
    packed = archive.gpg("--sign", "--armor", data=bytes(50_000_000))
    assert len(packed) < 1_000_000
    signature = packed.replace(b"PGP MESSAGE", b"PGP SIGNATURE")
    clear = archive.server.files["/debian/dists/sid/InRelease"]
    for answer in (packed, clear[: clear.index(b"-----BEGIN PGP SIG")] + signature, clear + packed, b"x\n" + clear):
        archive.server.files["/debian/dists/sid/InRelease"] = answer
        with pytest.raises(AikitError, match="not signed by a key of"):
            renew(archive)


def test_a_text_is_what_was_signed(archive: Archive) -> None:
    """Lines that begin with a dash are escaped, and blanks at their ends are not signed."""
    path = "/debian/dists/sid/InRelease"
    signed = archive.gpg("--clearsign", data=b"Suite: sid  \n- a\n-----b\nDate: x\n")
    archive.server.files[path] = signed
    with pytest.raises(AikitError, match="no date that can be read"):
        renew(archive)
    archive.server.files[path] = signed.replace(b"- -----b", b"-----b")
    with pytest.raises(AikitError, match="not signed by a key of"):
        renew(archive)


def test_an_index_that_is_longer_than_signed_is_not_read_to_its_end(archive: Archive) -> None:
    path = next(path for path in archive.server.files if "binary-amd64/by-hash" in path)
    archive.server.failures[path] = [file_server.Failure(endless=True)] * 2
    with pytest.raises(AikitError, match="answered with more than"):
        renew(archive)


def test_an_index_that_unpacks_to_more_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_archive, "_INDEX_LIMIT", 100)
    with pytest.raises(AikitError, match="unpacks to more than 100 bytes"):
        renew(archive)


def test_an_index_in_several_streams_is_read_to_its_end(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    half = len(INDEX) // 2
    streams = lzma.compress(INDEX[:half].encode()) + lzma.compress(INDEX[half:].encode())
    monkeypatch.setattr(lzma, "compress", lambda _: streams)
    archive.publish(INDEX)
    assert renew(archive).architectures["amd64"].engine == ENGINE


def test_an_index_that_ends_early_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = lzma.compress(INDEX.encode())[:-20]
    monkeypatch.setattr(lzma, "compress", lambda _: cut)
    archive.publish(INDEX)
    with pytest.raises(AikitError, match="cannot be unpacked"):
        renew(archive)


def test_what_a_mirror_has_is_asked_once_where_it_does_not_answer(archive: Archive) -> None:
    """A mirror of thousands of packages that is down must not cost as many timeouts."""
    wanted = [package for package in renew(archive).packages() if package.name != "patchelf"]
    for package in wanted[1:]:
        archive.server.files[f"/debian/{package.filename}"] = b"x" * package.size
    archive.server.files[f"/debian/{wanted[2].filename}"] = b"another size, as of a file that was cut"
    assert debian_archive.having(f"{archive.mirror}/", wanted) == {wanted[1], *wanted[3:]}
    asked = len(archive.server.requests)
    archive.server.failures[f"/debian/{wanted[0].filename}"] = [file_server.Failure(raw=b"")] * 99
    assert debian_archive.having(archive.mirror, wanted) is None
    paths = {request.path for request in archive.server.requests[asked:]}
    assert paths == {f"/debian/{wanted[0].filename}"}


@pytest.mark.usefixtures("nix")
def test_debs_come_from_the_first_mirror_that_has_them_and_are_what_the_lock_says(tmp_path: Path) -> None:
    """Into the very store paths that the flake's derivations look for; what was changed on the way never."""
    contents = [os.urandom(3000) for _ in range(3)]
    packages = [
        Package(f"p{n}", "1:1~1", f"pool/main/p/p{n}_1~1_amd64.deb", hashlib.sha256(content).hexdigest(), len(content))
        for n, content in enumerate(contents)
    ]
    with file_server.serve() as one, file_server.serve() as other:
        one.files["/debian/pool/main/p/p0_1~1_amd64.deb"] = contents[0]
        for package, content in zip(packages, contents, strict=True):
            other.files[f"/debian/{package.filename}"] = content
        other.failures["/debian/pool/main/p/p1_1~1_amd64.deb"] = [file_server.Failure(), file_server.Failure(cut=10)]
        mirrors = [f"{one.url}/debian/", f"{other.url}/debian"]
        debian_archive.bring(mirrors, packages[:2], tmp_path)
        assert one.count("/debian/pool/main/p/p0_1~1_amd64.deb") == other.count(f"/debian/{packages[0].filename}") + 2
        assert [package.store_path.read_bytes() for package in packages[:2]] == contents[:2]
        assert packages[0].store_path.name.endswith("-p0_1-1_amd64.deb")
        other.files[f"/debian/{packages[2].filename}"] = os.urandom(3000)
        with pytest.raises(AikitError, match="p2_1-1_amd64"):
            debian_archive.bring(mirrors, packages[2:], tmp_path)
        assert not packages[2].store_path.exists()
        del other.files[f"/debian/{packages[2].filename}"]
        with pytest.raises(AikitError, match=r"no mirror has pool/main/p/p2_1~1_amd64.deb: name one in AIKIT_DEB"):
            debian_archive.bring(mirrors, packages[2:], tmp_path)
    subprocess.run(["nix-store", "--delete", *(package.store_path for package in packages[:2])], check=False)


def test_mirrors_of_which_none_answers_are_said(archive: Archive, tmp_path: Path) -> None:
    dead = "http://127.0.0.1:1/debian"
    with pytest.raises(AikitError, match=f"^error: {dead} cannot be reached: is there a network"):
        debian_archive.bring([dead], renew(archive).packages(), tmp_path)
