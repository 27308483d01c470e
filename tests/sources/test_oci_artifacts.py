"""`oci://`: `lock` and `fetch` with every kind of model artifact, in a registry."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aikit_nix.nix import store
from support import registry, tiny_gguf
from support.artifacts import FILE_PATH, MANIFEST, OLLAMA, OLLAMA_CONFIG, TITLE, Layer, Pusher, tar
from support.file_server import Failure, FileServer, serve
from support.locks import digest, done, in_store, locked, only_file, refused, run, write
from support.logins import log_in
from support.registry import Registry

pytestmark = pytest.mark.usefixtures("nix", "hub")


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without a login."""
    if problem := registry.missing():
        pytest.skip(problem)
    with registry.serve(tmp_path_factory.mktemp("registry")) as running:
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
            "gguf": tiny_gguf.FACTS,  # its head alone was read
        }
    ]
    assert not in_store(name, model)
    done(tmp_path, "fetch")
    assert in_store(name, model)
    assert only_file(tmp_path)["layer"]
    done(tmp_path, "gen", "--elsewhere")
    plan = json.loads((tmp_path / "flake/aikit/plan.json").read_text())
    assert [file["path"] for file in plan["models"]] == [f"/models/{name}"]
    assert "aikit-nix fetch" in plan["models"][0]["fetch"]


def test_init_takes_an_artifact_of_one_model(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    pusher.artifact("1b", [Layer(OLLAMA, model)], OLLAMA_CONFIG)
    address = f"oci://{pusher.registry}/{pusher.repository}:1b"
    said = done(tmp_path, "init", "--model", address, "--runtime", "avx2")
    assert "next: aikit-nix build\n" in said
    (entry,) = locked(tmp_path)
    assert entry["files"][0]["sha256"] == digest(model)
    written = (tmp_path / "aikitfile.yaml").read_text()
    assert address in written
    assert "use_tokenizer_template: true" in written  # by the GGUF's head, which was all that came
    pusher.artifact("two", [Layer(OLLAMA, model), Layer(OLLAMA, model + b"2")], OLLAMA_CONFIG)
    two = f"oci://{pusher.registry}/{pusher.repository}:two"
    assert "has 2 GGUF files" in refused(tmp_path, "init", "--force", "--model", two)


@pytest.mark.parametrize("layer", [Layer(OLLAMA, b"<html>"), Layer("application/x", b"<html>", {TITLE: "m.gguf"})])
def test_what_is_no_gguf_is_refused(tmp_path: Path, pusher: Pusher, layer: Layer) -> None:
    pusher.artifact("1b", [layer], OLLAMA_CONFIG)
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "is no GGUF: it is an HTML page" in refused(tmp_path, "lock")


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


def test_dockers_shards(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [Layer("application/vnd.docker.ai.gguf.v3", model + bytes([number])) for number in (1, 2)]
    layers += [Layer("application/vnd.docker.ai.chat.template.jinja", b"{{ messages }}")]
    pusher.artifact("1b", layers, "application/vnd.docker.ai.model.config.v0.1+json")
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "its chat template of" in run(tmp_path, "lock").stderr
    name = pusher.repository.rpartition("/")[2]
    assert paths(tmp_path) == [f"/models/{name}-00001-of-00002.gguf", f"/models/{name}-00002-of-00002.gguf"]


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
        Layer("application/vnd.oci.image.layer.v1.tar", model, {TITLE: "m.gguf"}),  # oras's word for any file
        Layer("application/json", b"{}", {TITLE: "sub/config.json"}),
    ]
    pusher.artifact("1b", layers, "application/vnd.oci.empty.v1+json", "application/vnd.unknown.artifact.v1")
    lock(tmp_path, pusher)
    assert paths(tmp_path) == ["/models/m.gguf", "/models/sub/config.json"]


@pytest.mark.parametrize("name", ["../m.gguf", ""])
def test_a_file_that_would_leave_its_folder(tmp_path: Path, pusher: Pusher, model: bytes, name: str) -> None:
    pusher.artifact(
        "1b", [Layer("application/octet-stream", model, {TITLE: name})], "application/vnd.oci.empty.v1+json"
    )
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "aikitfile.yaml:3:" in refused(tmp_path, "lock")


def test_an_archive_that_is_refused_leaves_no_lock(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    layers = [Layer("application/vnd.kitops.modelkit.model.v1.tar", tar({"m.gguf": model}, link="l"))]
    pusher.artifact("1b", layers, "application/vnd.kitops.modelkit.config.v1+json")
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "aikitfile.yaml:3:" in refused(tmp_path, "lock")
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


def test_an_artifact_with_two_archives_of_one_name(tmp_path: Path, pusher: Pusher, model: bytes) -> None:
    kind = "application/vnd.kitops.modelkit.{}.v1.tar"
    layers = [Layer(kind.format("model"), tar({"m.gguf": model, "LICENSE": b"a"}))]
    layers += [Layer(kind.format("docs"), tar({"./LICENSE": b"b"}))]
    pusher.artifact("1b", layers, "application/vnd.kitops.modelkit.config.v1+json")
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "`m` has two files on /models/LICENSE" in refused(tmp_path, "lock")
    assert not (tmp_path / "aikit.lock").exists()


def test_an_archive_of_nothing(tmp_path: Path, pusher: Pusher) -> None:
    layer = Layer("application/vnd.kitops.modelkit.model.v1.tar", tar({}))
    pusher.artifact("1b", [layer], "application/vnd.kitops.modelkit.config.v1+json")
    write(tmp_path, ("m", f"oci://{pusher.registry}/{pusher.repository}:1b"))
    assert "the source cannot be locked: the model 'm' has no files" in refused(tmp_path, "lock")
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
