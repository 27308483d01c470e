"""`aikit-nix lock` and `fetch` with a real registry: every kind of model artifact, and the logins of docker and podman."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix import store
from support import registry
from support.artifacts import FILE_PATH, MANIFEST, TITLE, Layer, Pusher, tar
from support.file_server import Failure, FileServer, serve
from support.locks import digest, done, in_store, locked, only_file, refused, write
from support.registry import Registry

pytestmark = pytest.mark.usefixtures("nix", "hub")

OLLAMA_CONFIG = "application/vnd.docker.container.image.v1+json"
OLLAMA = "application/vnd.ollama.image.model"
LOGIN = ("someone", "a-Password-0f-the-tests")


@pytest.fixture
def model() -> bytes:
    """Some bytes that are in no store yet, and begin like a GGUF."""
    return b"GGUF" + os.urandom(3000)


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without a login."""
    if problem := registry.missing():
        pytest.skip(problem)
    with registry.serve(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for LOGIN."""
    if problem := registry.missing(login=True):
        pytest.skip(problem)
    with registry.serve(tmp_path_factory.mktemp("registry"), LOGIN) as running:
        yield running


@pytest.fixture
def pusher(open_registry: Registry, tmp_path: Path) -> Pusher:
    return Pusher(open_registry.address, f"library/{tmp_path.name.lower().replace('_', '-')}x")


def lock(folder: Path, pusher: Pusher, tag: str = "1b") -> str:
    write(folder, ("m", f"oci://{pusher.registry}/{pusher.repository}:{tag}"))
    return done(folder, "lock")


def paths(folder: Path) -> list[str]:
    return [file["path"] for entry in locked(folder) for file in entry["files"]]


def test_ollamas_model_is_pinned_by_its_digest(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [Layer(OLLAMA, model), Layer("application/vnd.ollama.image.template", b"{{ .Prompt }}")]
    manifest = pusher.artifact("1b", layers, OLLAMA_CONFIG)
    lock(tmp_path, pusher)
    (entry,) = locked(tmp_path)
    where = f"{pusher.registry}/{pusher.repository}"
    assert entry["origin"] == {"kind": "oci", "repository": where, "revision": manifest}
    name = pusher.repository.rpartition("/")[2]
    assert entry["files"] == [
        {
            "path": f"/models/{name}",
            "url": f"http://{pusher.registry}/v2/{pusher.repository}/blobs/sha256:{digest(model)}",
            "private": True,
            "size": len(model),
            "sha256": digest(model),
        }
    ]
    assert not in_store(name, model)
    done(tmp_path, "fetch")
    assert in_store(name, model)
    assert only_file(tmp_path)["layer"]
    done(tmp_path, "gen", "--elsewhere")
    plan = json.loads((tmp_path / "aikit/plan.json").read_text())
    assert [file["path"] for file in plan["models"]] == [f"/models/{name}"]
    assert "aikit-nix fetch" in plan["models"][0]["fetch"]


def test_ollamas_tensors_are_refused(tmp_path: Path, pusher: Pusher) -> None:
    pusher.artifact("1b", [Layer("application/vnd.ollama.image.tensor", b"weights")], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "holds tensors for Ollama's own engine, no GGUF" in refused(tmp_path, "lock")


def test_a_tag_that_moves(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    pusher.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    lock(tmp_path, pusher)
    pusher.artifact("1b", [Layer(OLLAMA, model + b"2")], OLLAMA_CONFIG)
    done(tmp_path, "fetch")
    assert only_file(tmp_path)["sha256"] == digest(model)
    done(tmp_path, "lock", "--update", "m")
    assert only_file(tmp_path)["sha256"] == digest(model + b"2")


def test_by_digest(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    manifest = pusher.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}@{manifest}"))
    done(tmp_path, "lock")
    assert only_file(tmp_path)["sha256"] == digest(model)


def test_modelpack_raw_and_tar(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    weight = "application/vnd.cncf.model.weight.v1"
    layers = [
        Layer(f"{weight}.raw", model, {FILE_PATH: "m.gguf"}),
        Layer(
            f"{weight}.config.v1.tar",
            tar({"config/a.json": b"{}", "config/b.json": model + b"b"}),
            {FILE_PATH: "config"},
        ),
    ]
    kind = "application/vnd.cncf.model.manifest.v1+json"
    pusher.artifact("1b", layers, "application/vnd.cncf.model.config.v1+json", kind)
    said = lock(tmp_path, pusher)
    assert paths(tmp_path) == ["/models/config/a.json", "/models/config/b.json", "/models/m.gguf"]
    assert "/models/config/a.json, 2 B" in said
    assert in_store("b.json", model + b"b")
    done(tmp_path, "fetch")
    assert in_store("m.gguf", model)


def test_dockers_models(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [Layer("application/vnd.docker.ai.gguf.v3", model), Layer("application/vnd.docker.ai.license", b"MIT")]
    pusher.artifact("1b", layers, "application/vnd.docker.ai.model.config.v0.1+json")
    lock(tmp_path, pusher)
    assert paths(tmp_path) == [f"/models/{pusher.repository.rpartition('/')[2]}.gguf"]


def test_kitops_tar_gzip(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [
        Layer("application/vnd.kitops.modelkit.model.v1.tar+gzip", tar({"./weights/m.gguf": model}, "w:gz")),
        Layer("application/vnd.kitops.modelkit.docs.v1.tar+gzip", tar({"README.md": b"read me"}, "w:gz")),
    ]
    pusher.artifact("1b", layers, "application/vnd.kitops.modelkit.config.v1+json")
    lock(tmp_path, pusher)
    assert paths(tmp_path) == ["/models/README.md", "/models/weights/m.gguf"]
    assert in_store("m.gguf", model)
    done(tmp_path, "fetch")
    done(tmp_path, "gen", "--elsewhere")
    assert "up to date" in done(tmp_path, "lock", "--update")
    # Another machine, whose store has nothing of it
    path = store.store_path("m.gguf", digest(model))
    subprocess.run(["nix-store", "--delete", path], check=True, capture_output=True)
    done(tmp_path, "fetch", "--flake", "none")
    assert in_store("m.gguf", model)


def test_plain_files_of_oras(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [
        Layer("application/vnd.oci.image.layer.v1.tar", model, {TITLE: "m.gguf"}),
        Layer("application/json", b"{}", {TITLE: "sub/config.json"}),
    ]
    layers[0] = Layer("application/octet-stream", model, {TITLE: "m.gguf"})
    pusher.artifact("1b", layers, "application/vnd.oci.empty.v1+json", "application/vnd.unknown.artifact.v1")
    lock(tmp_path, pusher)
    assert paths(tmp_path) == ["/models/m.gguf", "/models/sub/config.json"]


@pytest.mark.parametrize("name", ["../m.gguf", "/etc/m.gguf", "a/../../m.gguf", "a\nb", ""])
def test_a_file_that_would_leave_its_folder(tmp_path: Path, pusher: Pusher, model: bytes, name: str) -> None:
    pusher.artifact(
        "1b", [Layer("application/octet-stream", model, {TITLE: name})], "application/vnd.oci.empty.v1+json"
    )
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "aikitfile.yaml:3:" in refused(tmp_path, "lock")


@pytest.mark.parametrize("bad", ["link", "cut", "garbled", "outside", "bomb", "none"])
def test_archives_that_are_refused(tmp_path: Path, pusher: Pusher, model: bytes, bad: str) -> None:
    garbled = bytearray(tar({"m.gguf": model}, "w:gz"))
    garbled[12:40] = b"\xff" * 28
    archive = {
        "link": tar({"m.gguf": model}, link="l"),
        "cut": tar({"m.gguf": model}, "w:gz")[:-100],
        "outside": tar({"../m.gguf": model}),
        "garbled": garbled,
        "bomb": tar({"m.gguf": bytes(70 << 20)}, "w:gz"),
        "none": b"no archive",
    }[bad]
    pusher.artifact(
        "1b",
        [Layer("application/vnd.kitops.modelkit.model.v1.tar", bytes(archive))],
        "application/vnd.kitops.modelkit.config.v1+json",
    )
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    said = refused(tmp_path, "lock")
    assert "aikitfile.yaml:3:" in said
    assert not (tmp_path / "aikit.lock").exists()


def test_an_index_of_several_platforms(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    amd64 = pusher.artifact("amd64", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    arm64 = pusher.artifact("arm64", [Layer(OLLAMA, model + b"arm")], OLLAMA_CONFIG)
    pusher.index("1b", {"linux/amd64": amd64, "linux/arm64": arm64, "unknown/unknown": arm64})
    lock(tmp_path, pusher)
    assert only_file(tmp_path)["sha256"] == digest(model)
    pusher.index("2b", {"linux/riscv64": amd64, "linux/arm64": arm64})
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:2b"))
    assert "is an index of several artifacts: name one by its digest" in refused(tmp_path, "lock")


def test_two_artifacts_with_a_file_on_the_same_path(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    for tag in ("1b", "2b"):
        layer = Layer("application/octet-stream", model + tag.encode(), {TITLE: "m.gguf"})
        pusher.artifact(tag, [layer], "application/vnd.oci.empty.v1+json")
    where = f"oci://{pusher.registry}/{pusher.repository}"
    write(tmp_path, ("a", f"{where}:1b"), ("b", f"{where}:2b"))
    said = refused(tmp_path, "lock")
    assert "`b` lands on /models/m.gguf, as line 3 does" in said
    assert not (tmp_path / "aikit.lock").exists()


def test_what_is_not_there(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    pusher.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    where = f"oci://{pusher.registry}/{pusher.repository}"
    write(tmp_path, ("m", f"{where}:none"), ("n", f"{where}none:1b"), ("o", "oci://127.0.0.1:1/a/b:1"))
    said = refused(tmp_path, "lock")
    for line in (3, 4, 5):
        assert f"aikitfile.yaml:{line}:" in said
    assert "has no none: check the name and the tag" in said
    write(tmp_path, ("m", where))
    assert f"has no tag: write {where}:TAG" in refused(tmp_path, "lock")


def test_a_container_image_is_no_model(tmp_path: Path, pusher: Pusher) -> None:
    pusher.artifact(
        "1b",
        [Layer("application/vnd.oci.image.layer.v1.tar+gzip", tar({"bin/sh": b"#"}, "w:gz"))],
        "application/vnd.oci.image.config.v1+json",
    )
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "is it a container image?" in refused(tmp_path, "lock")


# --- Logins


HOW = ("docker", "docker-default", "auth-json", "registry-auth-file", "helper", "store", "repository")


def log_in(how: str, registry_name: str, folder: Path, password: str = LOGIN[1]) -> dict[str, str]:
    """Write a login as docker or podman would; gives the environment in which they find it."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CONFIG_HOME": str(home / "config")}
    entry = {"auth": base64.b64encode(f"{LOGIN[0]}:{password}".encode()).decode()}
    content: dict[str, object] = {"auths": {"other.example": {"auth": "eDp5"}, registry_name: entry}}
    where = home / ".docker/config.json"
    match how:
        case "docker":
            where = home / "elsewhere/config.json"
            env["DOCKER_CONFIG"] = str(where.parent)
        case "auth-json":
            where = home / "run/containers/auth.json"
        case "registry-auth-file":
            where = home / "named.json"
            env["REGISTRY_AUTH_FILE"] = str(where)
        case "helper" | "store":
            program = home / "bin/docker-credential-test"
            program.parent.mkdir(exist_ok=True)
            program.write_text(
                "#!/bin/sh\nread -r server\n"
                f'if [ "$1 $server" = "get {registry_name}" ]; then echo \'{{"Username": "{LOGIN[0]}", "Secret": "{password}"}}\'; exit 0; fi\n'
                "echo 'credentials not found in native keychain'; exit 1\n"
            )
            program.chmod(0o755)
            env["PATH"] = f"{program.parent}:{os.environ['PATH']}"
            content = {"credsStore": "test"} if how == "store" else {"credHelpers": {registry_name: "test"}}
        case "repository":
            content = {"auths": {registry_name: {"auth": "d3Jvbmc6d3Jvbmc="}, f"{registry_name}/team": entry}}
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(content))
    return env


@pytest.mark.parametrize("how", HOW)
def test_logins(tmp_path: Path, closed_registry: Registry, model: bytes, how: str) -> None:
    """Found where docker and podman keep them, sent to the registry alone, and written nowhere."""
    there = Pusher(closed_registry.address, f"team/{how}", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    nobody = {"HOME": str(tmp_path / "empty"), "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": ""}
    said = refused(tmp_path, "lock", env=nobody)
    assert f"docker login {there.registry}" in said
    assert not (tmp_path / "aikit.lock").exists()

    env = log_in(how, there.registry, tmp_path)
    said = done(tmp_path, "--verbose", "lock", env=env)
    assert f"docker login {there.registry}" in refused(tmp_path, "fetch", env=nobody)
    said += done(tmp_path, "--verbose", "fetch", env=env)
    assert in_store(how, model)
    secrets = (LOGIN[1], base64.b64encode(":".join(LOGIN).encode()).decode())
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and "home" not in file.parts]
    for secret in secrets:
        assert secret not in said
        assert not any(secret.encode() in data for data in kept)


def test_a_wrong_password(tmp_path: Path, closed_registry: Registry, model: bytes) -> None:
    there = Pusher(closed_registry.address, "team/wrong", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    said = refused(tmp_path, "lock", env=log_in("docker", there.registry, tmp_path, "an-0ther-Password"))
    assert "docker login" in said
    assert "an-0ther-Password" not in said


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": 7}', '{"credsStore": "../../bin/sh"}', '{"credsStore": "not-there"}']
)
def test_a_file_of_logins_that_is_none(tmp_path: Path, closed_registry: Registry, text: str) -> None:
    write(tmp_path, ("m", f"oci://{closed_registry.address}/team/any:1b"))
    env = log_in("docker", closed_registry.address, tmp_path)
    (Path(env["DOCKER_CONFIG"]) / "config.json").write_text(text)
    assert len(refused(tmp_path, "lock", env=env).strip().splitlines()) <= 3


# --- Registries with tokens, as Docker Hub


def test_tokens_that_expire_while_a_blob_comes(tmp_path: Path, files: FileServer, model: bytes) -> None:
    """A new one is asked for, and the download goes on where it was; the host with the bytes gets none."""
    model += os.urandom(6 << 20)
    registry_name = files.url.removeprefix("http://")
    blob = f"/v2/team/m/blobs/sha256:{digest(model)}"
    layer = {"mediaType": OLLAMA, "digest": f"sha256:{digest(model)}", "size": len(model)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": [layer]}
    challenge = f'Bearer realm="{files.url}/token",service="registry",scope="repository:team/m:pull"'
    asks = Failure(401, {"WWW-Authenticate": challenge})
    with serve() as store_of_blobs:
        files.files = {
            "/v2/team/m/manifests/1b": json.dumps(manifest).encode(),
            "/token": b'{"token": "the-Token-0f-the-tests"}',
        }
        files.redirects[blob] = f"{store_of_blobs.url}/bytes"
        store_of_blobs.files["/bytes"] = model
        files.failures["/v2/team/m/manifests/1b"] = [asks]
        write(tmp_path, ("m", f"oci://{registry_name}/team/m:1b"))
        env = log_in("docker", registry_name, tmp_path)
        said = done(tmp_path, "--verbose", "lock", env=env)

        store_of_blobs.failures["/bytes"] = [Failure(cut=5 << 20)]
        files.failures[blob] = [asks]
        files.files["/token"] = b'{"token": "an0ther-Token-0f-the-tests"}'
        said += done(tmp_path, "--verbose", "fetch", env=env)
        assert in_store("m", model)
        assert not [request for request in store_of_blobs.requests if "authorization" in request.headers]
        ranges = [request.headers.get("range") for request in store_of_blobs.requests]
        assert any(asked and not asked.startswith("bytes=0-") for asked in ranges)
    assert "Token-0f-the-tests" not in said
    tokens = [request.headers["authorization"] for request in files.requests if request.path == "/token"]
    assert all(token.startswith("Basic ") for token in tokens)
    used = {request.headers.get("authorization") for request in files.requests if request.path == blob}
    assert "Bearer an0ther-Token-0f-the-tests" in used


def test_a_registry_that_gives_no_token(tmp_path: Path, files: FileServer) -> None:
    registry_name = files.url.removeprefix("http://")
    files.failures["/v2/team/m/manifests/1b"] = [
        Failure(401, {"WWW-Authenticate": f'Bearer realm="{files.url}/token"'})
    ]
    files.files["/token"] = b"[]"
    write(tmp_path, ("m", f"oci://{registry_name}/team/m:1b"))
    assert "gave no token for team/m" in refused(tmp_path, "lock")


def test_a_lock_cannot_send_a_login_elsewhere(
    tmp_path: Path, files: FileServer, closed_registry: Registry, model: bytes
) -> None:
    there = Pusher(closed_registry.address, "team/elsewhere", LOGIN)
    there.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{there.registry}/{there.repository}:1b"))
    env = log_in("docker", there.registry, tmp_path)
    done(tmp_path, "lock", env=env)
    lock_file = tmp_path / "aikit.lock"
    lock_file.write_text(lock_file.read_text().replace(only_file(tmp_path)["url"], f"{files.url}/blob"))
    files.files["/blob"] = model
    files.failures["/blob"] = [Failure(401, {"WWW-Authenticate": 'Basic realm="mine"'})] * 3
    assert refused(tmp_path, "fetch", env=env)
    assert files.requests
    assert not [request for request in files.requests if "authorization" in request.headers]
