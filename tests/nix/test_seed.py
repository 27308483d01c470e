"""The seed program: fetches a pinned file from the first mirror that has it, and opens an ar archive."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aikit_nix.base import data
from aikit_nix.debian import mirror as debian_mirror
from aikit_nix.http import client as http
from support.file_server import Failure, FileServer

SEED = data.NIX / "packages/debian/seed"
DATA = bytes(range(256)) * 1000
PATH = "/debian/pool/main/l/lib/lib+x_1~2.deb"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the seed is an x86-64 program")


def carried(text: str) -> bytes:
    """The program in seed.txt."""
    lines = text.splitlines()
    assert lines[0].startswith("begin-base64 ")
    assert lines[-1] == "===="
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode("".join(lines[1:-1])))) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.mtime, member.uid) == ("seed", 0o755, 1, 0)
        content = archive.extractfile(member)
        assert content
        return content.read()


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("seed") / "seed", "x86_64-linux")


def write(program: Path, system: str) -> Path:
    program.write_bytes(carried((SEED / f"{system}.txt").read_text()))
    program.chmod(0o755)
    return program


def fetch(
    seed: Path | list[str | Path], out: Path, *mirrors: str, fallback: str = "http://127.0.0.1:1/archive", **env: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        "AIKIT_DEBIAN_MIRROR": " ".join(mirrors),
        "mirrors": fallback,
        "path": PATH.removeprefix("/debian/"),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "size": str(len(DATA)),
        "package": "libx 1:1~2",
        "renew": "renew-command",
        "out": str(out),
    }
    program = seed if isinstance(seed, list) else [seed]
    return subprocess.run(
        [*program, "fetch"], env={**environment, **env}, capture_output=True, text=True, check=False, timeout=60
    )


def arrives(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == DATA


@contextmanager
def raw_server(*answers: bytes) -> Iterator[str]:
    """Answers each connection in turn with these bytes; a mirror's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:  # not asked as often
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/debian"
        finally:
            # A thread that still waits would go on answering on what gets this number next.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_file_is_fetched(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.files[PATH] = DATA
    arrives(fetch(seed, tmp_path / "out", f"{files.url}/debian"), tmp_path / "out")
    assert files.requests[0].headers["host"] == files.url.removeprefix("http://")


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_mirrors_are_tried_in_turn(seed: Path, files: FileServer, tmp_path: Path, slashes: str) -> None:
    files.files[f"/changed{PATH}"] = b"another version"
    files.files[PATH] = DATA
    mirrors = ["http://127.0.0.1:1", "gopher://x", f"{files.url}/none", f"{files.url}/changed/debian"]
    done = fetch(seed, tmp_path / "out", *mirrors, f"{files.url}/debian{slashes}")
    arrives(done, tmp_path / "out")
    for reason in ("Connection refused", "only http://", "404 Not Found", "another file, of sha256"):
        assert reason in done.stderr


def test_the_archive_comes_last(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.files[PATH] = DATA
    arrives(fetch(seed, tmp_path / "out", fallback=f"{files.url}/debian"), tmp_path / "out")
    arrives(fetch(seed, tmp_path / "out", f"{files.url}/none", fallback=f"{files.url}/debian"), tmp_path / "out")


def test_a_file_that_nobody_has_is_an_error_that_says_all(seed: Path, files: FileServer, tmp_path: Path) -> None:
    done = fetch(seed, tmp_path / "out", f"{files.url}/debian", "http://nobody.invalid/debian")
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()
    for part in (
        "libx 1:1~2",
        hashlib.sha256(DATA).hexdigest(),
        f"{files.url}{PATH}: HTTP/1.1 404 Not Found",
        "http://nobody.invalid/debian/pool/",
        "http://127.0.0.1:1/archive/pool/",
        "AIKIT_DEBIAN_MIRROR",
        "renew-command",
    ):
        assert part in done.stderr
    # Nix shows the last ten lines of a failed build.
    assert len(done.stderr.splitlines()) <= 10


def test_redirects_are_followed(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.files["/file/abc"] = DATA
    files.redirects = {
        PATH: f"{files.url}/absolute",
        "/absolute": "/folder/rooted",
        "/folder/rooted": "relative?from=http://a.example/b",
        "/folder/relative": "again",
        "/folder/again": files.url.removeprefix("http:") + "/file/abc",
    }
    arrives(fetch(seed, tmp_path / "out", f"{files.url}/debian"), tmp_path / "out")


@pytest.mark.parametrize(
    ("location", "reason"),
    [(PATH, "too many redirects"), ("https://x.example/y", "only http://"), ("/" + "a" * 3000, "302")],
)
def test_a_redirect_to_nowhere_is_an_error(
    seed: Path, files: FileServer, tmp_path: Path, location: str, reason: str
) -> None:
    files.redirects = {PATH: location}
    done = fetch(seed, tmp_path / "out", f"{files.url}/debian")
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_connection_that_breaks_is_tried_again(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.files[PATH] = DATA
    files.failures[PATH] = [Failure(cut=1000)]
    arrives(fetch(seed, tmp_path / "out", f"{files.url}/debian"), tmp_path / "out")
    files.failures[PATH] = [Failure(status=503)]
    arrives(fetch(seed, tmp_path / "out", f"{files.url}/debian"), tmp_path / "out")
    files.failures[PATH] = [Failure(cut=1000), Failure(cut=1000)]
    done = fetch(seed, tmp_path / "out", f"{files.url}/debian")
    assert done.returncode == 1
    assert "broke off" in done.stderr


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(size: int, extension: bytes = b"") -> bytes:
    parts = [DATA[start : start + size] for start in range(0, len(DATA), size)]
    body = b"".join(b"%X%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return CHUNKED + body + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        chunks(1000),
        chunks(200_000, b";x=y"),
        b"HTTP/1.0 200 OK\n\n" + DATA,  # up to the end, bare line ends
        b"HTTP/1.1 200\r\nx\r\ncontent-length:%d\r\n\r\n%s" % (len(DATA), DATA),
    ],
)
def test_bodies_come_in_every_form(seed: Path, tmp_path: Path, answer: bytes) -> None:
    with raw_server(answer) as mirror:
        arrives(fetch(seed, tmp_path / "out", mirror), tmp_path / "out")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"ffffffffffffffffffff\r\nabc",
        chunks(1000)[:-100],
        b"HTTP/1.1 302 Found\r\nLocation: x y\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_nonsense_is_an_error(seed: Path, tmp_path: Path, answer: bytes) -> None:
    with raw_server(answer, answer) as mirror:
        done = fetch(seed, tmp_path / "out", mirror)
    assert done.returncode == 1, done.stderr
    assert f"{mirror}{PATH.removeprefix('/debian')}: " in done.stderr


def test_a_proxy_is_asked(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.files[PATH] = DATA
    done = fetch(seed, tmp_path / "out", "http://nobody.invalid/debian", http_proxy=f"{files.url}/")
    arrives(done, tmp_path / "out")
    assert files.requests[0].headers["host"] == "nobody.invalid"
    done = fetch(seed, tmp_path / "out", "http://nobody.invalid/debian", http_proxy="socks5://x")
    assert "http_proxy is not" in done.stderr


@pytest.mark.parametrize(
    "mirror",
    ["http://", "http://:80", "http://[::1", "http://a:999999999/x", "http://u:p@host/x", "http://" + "a" * 9000],
)
def test_a_malformed_mirror_is_passed_over(seed: Path, files: FileServer, tmp_path: Path, mirror: str) -> None:
    files.files[PATH] = DATA
    done = fetch(seed, tmp_path / "out", mirror, f"{files.url}/debian")
    if len(mirror) < 8000:
        arrives(done, tmp_path / "out")
    else:
        assert "AIKIT_DEBIAN_MIRROR is too long" in done.stderr


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 65535, 65536, 65537, 1_000_003])
def test_the_hash_is_sha256(seed: Path, files: FileServer, tmp_path: Path, size: int) -> None:
    files.files[PATH] = (DATA * 4)[:size]
    sha256 = hashlib.sha256(files.files[PATH]).hexdigest()
    done = fetch(seed, tmp_path / "out", f"{files.url}/debian", sha256=sha256, size=str(size))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == files.files[PATH]


@pytest.mark.parametrize(
    "answer",
    [
        Failure(endless=True),
        Failure(flood=b"HTTP/1.1 200 OK\r\n\r\n" + DATA),
        Failure(flood=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + bytes(0x1000) + b"\r\n"),
        Failure(length=1 << 40),
    ],
)
def test_no_more_is_written_than_was_pinned(seed: Path, files: FileServer, tmp_path: Path, answer: Failure) -> None:
    files.files[PATH] = DATA + b"x"
    files.failures[PATH] = [answer] * 2
    limit = 2 * len(DATA)  # bytes; what exceeds it is killed
    program: list[str | Path] = ["prlimit", f"--fsize={limit}", seed]
    done = fetch(program, tmp_path / "out", f"{files.url}/debian", PATH=os.environ["PATH"])
    assert done.returncode == 1, done
    assert "longer than the pinned one" in done.stderr or "malformed chunk" in done.stderr


@pytest.mark.parametrize(
    "answer", [Failure(drip=0.1), Failure(flood=b"X: y\r\n"), Failure(raw=b"HTTP/1.1 200 OK\r\n"), Failure(drip=30)]
)
def test_a_server_that_never_ends_is_left(seed: Path, files: FileServer, tmp_path: Path, answer: Failure) -> None:
    files.files[PATH] = DATA
    files.failures[PATH] = [answer] * 2
    done = fetch(seed, tmp_path / "out", f"{files.url}/debian", patience="1", size="1000")
    assert done.returncode == 1
    assert files.url in done.stderr


@pytest.mark.parametrize("password", ["s3cret", "x@s3cret", "x/s3cret", "x?s3cret", "x/s3cret@s3cret"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_no_part_of_a_password_is_shown(seed: Path, tmp_path: Path, scheme: str, password: str) -> None:
    done = fetch(seed, tmp_path / "out", f"{scheme}me:{password}@a.example/debian")
    assert "s3cret" not in done.stderr
    assert "a.example/debian: an address with a user or a password cannot be used" in done.stderr


def test_a_password_and_what_steers_a_terminal_are_not_shown(seed: Path, files: FileServer, tmp_path: Path) -> None:
    files.failures[PATH] = [Failure(raw=b"HTTP/1.1 404 \x1b]0;x\x07\xc2\x9b2J\r\n\r\n")]
    done = fetch(seed, tmp_path / "out", "http://me:s3cret@a.example/debian", f"{files.url}/debian")
    assert "s3cret" not in done.stderr
    assert "a.example/debian: an address with a user or a password cannot be used" in done.stderr
    assert "HTTP/1.1 404 ?]0;x???2J" in done.stderr


def ar(**members: bytes) -> bytes:
    archive = b"!<arch>\n"
    for name, content in members.items():
        archive += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(content))
        archive += content + b"\n" * (len(content) % 2)
    return archive


@pytest.mark.parametrize("member", ["first", "second", "third"])
def test_a_member_of_an_archive_is_written(seed: Path, tmp_path: Path, member: str) -> None:
    content = {"first": b"odd", "second": DATA, "third": b""}
    (tmp_path / "a").write_bytes(ar(**content))
    env = {"archive": str(tmp_path / "a"), "member": member, "out": str(tmp_path / "out")}
    subprocess.run([seed, "member"], env=env, check=True)
    assert (tmp_path / "out").read_bytes() == content[member]


# A member of size -60: the next header is this one again.
NEGATIVE = b"!<arch>\n%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (b"other", 0, 0, 0, b"100644", -60)


@pytest.mark.parametrize(
    "archive", [b"", b"!<arch>\n", b"PK\3\4xxxxxxxx", ar(other=b"x"), ar(data=DATA)[:-5], ar(dat=b""), NEGATIVE]
)
def test_an_archive_without_the_member_is_an_error(seed: Path, tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "a").write_bytes(archive)
    env = {"archive": str(tmp_path / "a"), "member": "data", "out": str(tmp_path / "out")}
    done = subprocess.run([seed, "member"], env=env, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/a")


def test_the_seed_is_what_its_source_gives() -> None:
    for program, version in (("musl-gcc", "gcc (Debian 12.2.0-"), ("dpkg-query", "Debian dpkg-query")):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: apt-get install musl-tools")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if version not in said.replace("musl-gcc", "gcc"):
            pytest.skip(f"the seed was built by {version}…, this is {said.splitlines()[0]}")
    musl = subprocess.run(["dpkg-query", "-Wf", "${Version}", "musl-dev"], capture_output=True, text=True, check=False)
    if musl.stdout != "1.2.3-1":
        pytest.skip(f"the seed was linked with Debian's musl 1.2.3-1, this is {musl.stdout or 'another'}")
    assert_built("x86_64-linux", PATH=os.environ["PATH"])


def assert_built(system: str, **env: str) -> None:
    built = subprocess.run([SEED / "build.sh", system], capture_output=True, text=True, check=True, env=env).stdout
    assert carried(built) == carried((SEED / f"{system}.txt").read_text())


def test_the_seed_for_arm64_is_what_its_source_gives(tmp_path: Path) -> None:
    """Cross-compiled: with Debian 12's compiler, and its musl as it is for arm64, from the machine's mirror."""
    compiler = "aarch64-linux-gnu-gcc"
    if not shutil.which(compiler) or not shutil.which("dpkg-deb"):
        pytest.skip(f"{compiler} is not installed: apt-get install gcc-aarch64-linux-gnu")
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    if "12.2.0" not in said:
        pytest.skip(f"the seed was built by gcc 12.2.0, this is {said.splitlines()[0]}")
    mirror = debian_mirror.machine_mirror()
    try:
        with http.Client(http.Timeouts(attempts=1)) as client:
            (tmp_path / "musl.deb").write_bytes(client.get(f"{mirror}/{MUSL_ARM64}").body)
    except http.HttpError as problem:
        pytest.skip(f"musl for arm64 cannot be had: {problem.message}")
    subprocess.run(["dpkg-deb", "-x", tmp_path / "musl.deb", tmp_path / "musl"], check=True)
    assert_built("aarch64-linux", PATH=os.environ["PATH"], MUSL=str(tmp_path / "musl"))


MUSL_ARM64 = "pool/main/m/musl/musl-dev_1.2.3-1_arm64.deb"


def test_the_seed_for_arm64_fetches_too(files: FileServer, tmp_path: Path) -> None:
    if not shutil.which(EMULATOR):
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user-static")
    program: list[str | Path] = [EMULATOR, write(tmp_path / "seed", "aarch64-linux")]
    files.files[PATH] = DATA
    env = {"PATH": os.environ["PATH"]}
    arrives(fetch(program, tmp_path / "out", f"{files.url}/none", f"{files.url}/debian", **env), tmp_path / "out")
    files.files[PATH] = DATA[::-1]
    done = fetch(program, tmp_path / "out", f"{files.url}/debian", **env)
    assert done.returncode == 1
    assert f"another file, of sha256 {hashlib.sha256(DATA[::-1]).hexdigest()}" in done.stderr


EMULATOR = "qemu-aarch64-static"
