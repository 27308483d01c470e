"""A model from a stand-in for Hugging Face straight into Debian's registry, where no file system has room for it.

    bench_relay.py [GIB]     as root: 4 GiB by default, in a mount namespace that can write 200 MB and no more

Both ends are cut ten times; then comes a wrong last byte, a kill -9, and the push that succeeds. Prints CPU seconds beside
those of SHA-256, memory, and the most that was on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "generator")]

from aikit_nix.models import layer as model_layer  # noqa: E402
from aikit_nix.registry.reference import digest_of  # noqa: E402
from support import nix_env, registry  # noqa: E402
from support.command import aikit_nix  # noqa: E402
from support.loopback import Handler, Server, running  # noqa: E402
from support.wire import Wire, tap  # noqa: E402

_COMMIT = "c" * 40
_ROOM = "200m"
_CUTS = 10
_BLOCK = 1 << 20
# $1 the scratch folder, whose tmpfs is all that can be written; $2 the project; the rest is the command
_NAMESPACE = f"""
mount --make-rprivate /
mount -t tmpfs -o size={_ROOM} tmpfs "$1"
mkdir "$1"/up "$1"/work "$1"/up-var "$1"/work-var "$1"/db "$1"/tmp "$1"/project
cp -r "$2"/. "$1"/project
cp "$2"-db.sqlite "$1"/db/db.sqlite
cp /nix/var/nix/db/schema "$1"/db/
mount -t overlay -o lowerdir=/nix/store,upperdir="$1"/up,workdir="$1"/work overlay /nix/store
mount -t overlay -o lowerdir=/nix/var,upperdir="$1"/up-var,workdir="$1"/work-var overlay /nix/var
mount --bind "$1"/db /nix/var/nix/db
mount -o remount,bind,ro /
mount -o remount,bind,ro /dev/shm 2>/dev/null || true
export TMPDIR="$1"/tmp XDG_CACHE_HOME="$1"/tmp/cache HOME="$1"/tmp
cd "$1"/project
shift 2
set +e
"$@"
status=$?
cp aikit.lock flake/aikit/plan.json /proc/self/fd/$OUT/ 2>/dev/null
df --output=used -k "$TMPDIR" 2>/dev/null | tail -n 1 >&2
exit $status
"""


class _Hub(Handler):
    """What of Hugging Face `lock` and a download ask for; one file, sent by the kernel."""

    model: ClassVar[Path]
    digest: ClassVar[str]
    wrong: ClassVar[bool] = False
    cdn: ClassVar[str]

    def respond(self) -> None:
        path = urlsplit(self.path).path
        size = self.model.stat().st_size
        if path.startswith("/api/"):
            lfs = {"sha256": self.digest, "size": size, "pointerSize": 135}
            file = {"rfilename": "m.gguf", "blobId": "0" * 40, "size": size, "lfs": lfs}
            said = {
                "id": "ns/repo",
                "modelId": "ns/repo",
                "sha": _COMMIT,
                "siblings": [file],
                "cardData": {},
                "tags": [],
            }
            body = json.dumps(said).encode()
            self._head(200, {"Content-Length": len(body), "Content-Type": "application/json"})
            self.wfile.write(body)
        elif not path.startswith("/cdn/"):
            headers = {"X-Repo-Commit": _COMMIT, "X-Linked-Size": size, "X-Linked-Etag": f'"{self.digest}"'}
            self._head(302, {**headers, "Location": f"http://{self.cdn}/cdn/m.gguf", "Content-Length": 0})
        else:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = (int(wanted[1]), min(int(wanted[2] or size), size - 1)) if wanted else (0, size - 1)
            length = {"Content-Length": end - start + 1, "ETag": '"x"'}
            self._head(206 if wanted else 200, {**length, "Content-Range": f"bytes {start}-{end}/{size}"})
            if self.command == "GET":
                self._send(start, end)

    def _send(self, start: int, end: int) -> None:
        self.close_connection = True
        with suppress(OSError), self.model.open("rb") as file:
            self.wfile.flush()
            last = end + 1 - self.wrong
            while start < last:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, min(_BLOCK, last - start))
            if self.wrong and start == end:
                self.wfile.write(b"?")

    def _head(self, status: int, headers: dict[str, object]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()


def main(gib: str = "4") -> None:
    size = int(float(gib) * (1 << 30))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("AIKIT_BENCH_FOLDER"))))
        model = folder / "m.gguf"
        _write(model, size)
        started = _children()
        digest = subprocess.run(["openssl", "dgst", "-r", "-sha256", model], check=True, capture_output=True, text=True)
        _Hub.digest, _Hub.model = digest.stdout[:64], model
        sha256 = _children() - started
        hub = Server(("127.0.0.1", 0), _Hub)
        stack.enter_context(running(hub))
        origin = stack.enter_context(tap(f"127.0.0.1:{hub.server_port}"))
        _Hub.cdn = origin.address
        (folder / "registry").mkdir()
        server = stack.enter_context(registry.serve(folder / "registry"))
        target = stack.enter_context(tap(server.address))
        os.environ.update(nix_env.environment())
        os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", PYTHONDONTWRITEBYTECODE="1")
        project = folder / "project"
        project.mkdir()
        (project / "aikitfile.yaml").write_text(
            "apiVersion: v1alpha1\nmodels: [{name: m, source: 'huggingface://ns/repo/m.gguf'}]\n"
        )
        for words in (["lock", "--as-is", "m"], ["gen", "--packages", "debian"]):
            done = aikit_nix(*words, cwd=project)
            if done.returncode:
                sys.exit(done.stderr)
        # The engine's layers are there, as a runner's cache has them; a model is not needed for that
        with (
            closing(sqlite3.connect("file:/nix/var/nix/db/db.sqlite?mode=ro", uri=True)) as store,
            closing(sqlite3.connect(f"{project}-db.sqlite")) as copy,
        ):
            store.backup(copy)
        name = f"{target.address}/a/m:1"

        _Hub.wrong = True
        done, _ = _push(folder, project, name)
        _expect(done.returncode == 1 and f"must have {_Hub.digest}" in done.stderr, "a wrong last byte", done)
        _expect(server.tags("a/m") == [], "nothing is published", done)
        _Hub.wrong = False

        threading.Thread(target=_kill_at, args=(origin, origin.received + size // 4, name), daemon=True).start()
        done, _ = _push(folder, project, name)
        _expect(done.returncode != 0, "kill -9", done)

        for wire, inward in ((origin, True), (target, False)):
            wire.inward, wire.cuts, wire.cut_every = inward, _CUTS, size // (2 * _CUTS) if inward else size // 40
            wire.sent = wire.received = 0
            wire.cut_after = wire.cut_every
        before = _children()
        done, used = _push(folder, project, name)
        cut_cpu = _children() - before
        _expect(done.returncode == 0, "the push", done)
        print(f"cuts left: {origin.cuts} at the origin, {target.cuts} at the registry; {cut_cpu:.1f} CPU s; {used}")
        expected = digest_of(b"")
        with model.open("rb") as content:
            state = hashlib.sha256(model_layer.header("/models/m.gguf", size))
            while block := content.read(_BLOCK):
                state.update(block)
            state.update(model_layer.trailer(size))
            expected = f"sha256:{state.hexdigest()}"
        locked = json.loads((folder / "out/aikit.lock").read_text())["models"][0]["files"][0]
        _expect(locked["layer"]["digest"] == expected, "the layer in the lock", done)

        before = _children()
        done, used = _push(folder, project, f"{target.address}/b/m:1", "--mount-from", "none/such")
        _expect(done.returncode == 0, "a push without cuts", done)
        cpu = _children() - before
        print(f"SHA-256 {sha256:.2f} CPU s; relay {cpu:.2f} CPU s, {cpu / sha256:.1f} times; {used}")
        print(f"image {done.stdout.strip()}")


def _push(folder: Path, project: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], str]:
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    out = os.open(folder / "out", os.O_RDONLY)
    argv = ["unshare", "--mount", "bash", "-ec", _NAMESPACE, "namespace", str(folder / "scratch"), str(project)]
    argv += ["/usr/bin/env", "time", "-f", "memory %M kB", sys.executable, "-m", "aikit_nix.cli"]
    argv += ["push", *arguments]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, pass_fds=(out,), env={**os.environ, "OUT": str(out)}
    )
    os.close(out)
    memory = re.findall(r"memory \d+ kB", done.stderr)
    used = done.stderr.strip().rpartition("\n")[2]
    return done, f"{memory[-1] if memory else ''}; {used} kB used at the end"


def _kill_at(origin: Wire, received: int, name: str) -> None:
    while origin.received < received:
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if name.encode() in words and words[1:3] == [b"-m", b"aikit_nix.cli"]:
                os.kill(int(process.parent.name), 9)


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _write(file: Path, size: int) -> None:
    block = os.urandom(_BLOCK)
    with file.open("wb") as out:
        for number in range(size // _BLOCK):
            out.write(number.to_bytes(8, "big") + block[8:])


def _expect(right: bool, what: str, done: subprocess.CompletedProcess[str]) -> None:
    if not right:
        sys.exit(f"{what}: not so: status {done.returncode}\n{done.stdout}{done.stderr[-3000:]}")
    print(f"{what}: as it should be", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
