"""One blob on its way: connections that break, registries that differ, bytes that are not the ones."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aikit_nix.base.errors import AikitError, error
from aikit_nix.http.client import Answer, Client
from aikit_nix.image import layout
from aikit_nix.registry import upload
from aikit_nix.registry.blob import Blob
from aikit_nix.registry.client import Repository
from aikit_nix.registry.reference import digest_of
from aikit_nix.registry.upload import Upload
from support import layouts, wire
from support.fake_registry import LOGIN, FakeRegistry
from support.loopback import Handler, Server, running
from support.pushes import MIB, PATH, TIMEOUTS, refused, send

pytestmark = pytest.mark.usefixtures("own_folders")


def test_a_cut_connection_is_taken_up_where_it_was(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(8 * MIB)}, blobs=True)
    with wire.tap(fake.address) as tap:
        fake.cuts = [0, 2 * MIB, MIB]
        send(full, f"{tap.address}/a:1", chunk=4 * MIB, jobs=1)
        # Of a chunk that was cut what lay in the sockets was sent in vain: at the most the rest of each
        assert tap.sent < (8 + 4 + 2 + 3 + 1) * MIB
    assert fake.count("POST") == 3  # no blob was begun twice
    assert fake.manifests["a", "1"]


def test_where_the_registry_forgot_it_is_begun_again(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(4 * MIB)}, blobs=True)
    fake.ranges = False
    fake.cuts = [100, 100]
    send(full, f"{fake.address}/a:1", chunk=MIB)
    assert fake.count("POST") == 5
    assert fake.manifests["a", "1"]


@pytest.mark.parametrize("change", [{"chunks": False}, {"largest": 1 << 20}, {"least": 2 << 20}])
def test_chunks_are_as_the_registry_wants_them(fake: FakeRegistry, tmp_path: Path, change: dict[str, Any]) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(5 * MIB)}, blobs=True)
    for name, value in change.items():
        setattr(fake, name, value)
    send(full, f"{fake.address}/a:1", chunk=512 << 10 if "least" in change else 16 * MIB)
    assert fake.manifests["a", "1"]
    assert fake.count("PATCH") == {"chunks": 3, "largest": 2 + 2 + 6, "least": 2 + 3}[next(iter(change))]


def test_a_lost_answer_is_no_failure(fake: FakeRegistry, tmp_path: Path) -> None:
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(MIB)}, blobs=True)
    fake.lose_answer = True
    send(full, f"{fake.address}/a:1", jobs=1)
    assert fake.count("POST") == 3


@pytest.mark.parametrize("chunks", [True, False])
def test_a_flipped_bit_never_reaches_the_registry(fake: FakeRegistry, tmp_path: Path, chunks: bool) -> None:
    fake.chunks = chunks
    full = layouts.make(tmp_path / "full", {PATH: os.urandom(3 * MIB)}, blobs=True)
    image = layout.read_layout(full)
    blob = layout.blob_path(full, image.layers[0].digest).resolve()
    content = bytearray(blob.read_bytes())
    content[2 * MIB] ^= 1
    blob.write_bytes(content)
    said = refused(full, f"{fake.address}/a:1", chunk=MIB)
    assert PATH in said
    assert "damaged" in said
    assert ("a", image.layers[0].digest) not in fake.blobs
    assert not fake.manifests
    assert all(len(upload) < image.layers[0].size for upload in fake.uploads.values())


class Elsewhere:
    """A part that is on no disk."""

    def __init__(self, data: bytes, *, right: bool = True) -> None:
        self.size, self._data, self._right = len(data), data, right

    def blocks(self, start: int, count: int) -> Iterator[bytes]:
        for at in range(start, start + count, 1 << 16):
            yield self._data[at : min(at + (1 << 16), start + count)]

    def check(self) -> None:
        if not self._right:
            raise error("it is another one")


def test_a_blob_whose_bytes_alone_tell_its_digest(fake: FakeRegistry) -> None:
    data = os.urandom(3 * MIB)
    whole = b"before" + data + b"behind"
    parts = (b"before", Elsewhere(data), b"behind")
    fake.cuts = [MIB, 100]
    with Client(TIMEOUTS) as client:
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        digest = upload.send(there, Blob("", len(whole), "the model", parts), chunk=MIB)
        assert digest == digest_of(whole)
        assert fake.blobs["a/b", digest] == whole
        fake.chunks = False
        with pytest.raises(AikitError, match="this registry asks for it beforehand"):
            upload.send(there, Blob("", len(whole), "the model", parts))


@pytest.mark.parametrize("chunk", [MIB, 100 * MIB])
def test_what_is_wrong_elsewhere_is_never_closed(fake: FakeRegistry, chunk: int) -> None:
    data = os.urandom(2 * MIB)
    with Client(TIMEOUTS) as client:
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        for digest, size in (("", len(data) + 1), (digest_of(data + b"x"), len(data) + 1), ("", len(data))):
            parts = (Elsewhere(data, right=False), b"x"[: size - len(data)])
            with pytest.raises(AikitError, match="it is another one"):
                upload.send(there, Blob(digest, size, "the model", parts), chunk=chunk)
    assert not fake.blobs
    assert not fake.uploads


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_a_login_follows_to_another_port_that_asks_for_it(scheme: str, fake: FakeRegistry, tmp_path: Path) -> None:
    """As behind a forwarded port; what lies there and asks for nothing gets none: see the test of another host."""
    fake.token_life = 100
    fake.challenge = f'{scheme} realm="http://{{address}}/token"'
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {fake.address: {"auth": auth}}}))
    with wire.tap(fake.address) as other, Client(TIMEOUTS) as client:
        fake.location = f"http://{other.address}/v2/{{repository}}/blobs/uploads/{{name}}"
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        upload.send(there, Blob.of(b"bytes", "the model"))
        assert other.sent > 0
    assert b"bytes" in fake.blobs.values()


def begun(client: Client, location: str | None, base: str = "https://registry.example.com/v2/a/b/blobs/") -> Upload:
    """An upload that a registry answered to begin there."""
    headers = {} if location is None else {"Location": location}
    return Upload(Repository(client, "registry.example.com", "a/b"), Answer(base, 202, headers, b""))


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (None, "does not say where"),
        ("http://elsewhere.example.com/up", "is not encrypted"),
        ("file:///etc/passwd", "is not encrypted"),
        ("https://[", "is no address"),
    ],
)
def test_an_upload_goes_nowhere_unsafe(location: str | None, said: str) -> None:
    with Client() as client:
        with pytest.raises(AikitError, match=said):
            begun(client, location)
        begun(client, "http://registry.example.com/up")  # behind a proxy that speaks TLS for it


def test_a_login_is_not_sent_along_to_another_host(fake: FakeRegistry) -> None:
    """Registries in clouds let their storage take the bytes."""
    told: list[tuple[str, str | None]] = []

    class Storage(Handler):
        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.append((self.command, self.headers["Authorization"]))
            self.send_response(202 if self.command == "PATCH" else 201)
            self.send_header("Content-Length", "0")
            self.end_headers()

    fake.token_life = 100
    server = Server(("127.0.0.1", 0), Storage)
    with running(server), Client() as client:
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        there.login()
        assert "Authorization" in there.headers()
        headers = {"Location": f"http://127.0.0.1:{server.server_port}/up?x=1"}
        elsewhere = Upload(there, Answer(there.url("blobs/uploads/"), 202, headers, b""))
        upload.send(there, Blob.of(b"bytes", "the model"), begun=elsewhere)
    assert told == [("PATCH", None), ("PUT", None)]


def test_what_another_repository_does_not_have_is_uploaded(fake: FakeRegistry) -> None:
    made = Blob.of(b"bytes", "the model")
    fake.blobs["c/d", made.digest] = b"bytes"
    with Client() as client:
        there = Repository(client, fake.address, "a/b", actions="pull,push")
        assert upload.mount(there, made.digest, "c/d") is None
        other = Blob.of(b"others", "the model")
        upload.send(there, other, begun=upload.mount(there, other.digest, "c/d"))
    assert fake.blobs["a/b", made.digest] == b"bytes"
    assert fake.blobs["a/b", other.digest] == b"others"
    assert fake.uploads == {}
