"""`oci://`: how it is written, and what registries say of each kind of model artifact."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from aikit_nix.base.errors import AikitError
from aikit_nix.http.client import Client
from aikit_nix.sources import RefusedError, oci
from support.artifacts import INDEX, MANIFEST, TITLE
from support.file_server import FileServer

# --- How it is written


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("oci://registry.ollama.ai/library/llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"),
        ("oci://localhost/m:1", "localhost/m:1"),
        ("oci://[::1]:5000/a/b__c:V_1", "[::1]:5000/a/b__c:V_1"),
        (f"oci://h.example/m:1@sha256:{'a' * 64}", f"h.example/m@sha256:{'a' * 64}"),
    ],
)
def test_an_address_is_read_as_skopeo_reads_it(text: str, name: str) -> None:
    assert oci.read(text).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oci:h.example/m:1", "names no artifact"),
        ("oci://me:secret@h.example/m:1", "user name or password"),
        ("oci://library/llama3.2:1b", "names no registry"),
        ("oci://h.example", "names no registry"),
        ("oci://h.example$(id)/m:1", "names no registry"),
        ("oci://h.example/../m:1", "names no repository"),
        ("oci://h.example/M:1", "names no repository"),
        ("oci://h.example/a//m:1", "names no repository"),
        ("oci://h.example/m:-x", "a tag that no registry takes"),
        ("oci://h.example/m:1?x=y", "a tag that no registry takes"),
        ("oci://h.example/m@sha256:../x", "a digest that is not"),
        ("oci://h.example/m@sha512:" + "a" * 128, "a digest that is not"),
        ("oci://h.example/m", "has no tag: write oci://h.example/m:TAG"),
        ("oci://h.example/" + "m" * 256 + ":1", "more than 255 bytes"),
    ],
)
def test_an_address_that_no_registry_has_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as raised:
        oci.read(text)
    assert "secret@" not in str(raised.value)


# --- What a registry says of it


LAYER = {"mediaType": "x", "digest": f"sha256:{'1' * 64}", "size": 1, "annotations": {TITLE: "m.gguf"}}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "no list of layers"),
        ({"layers": {}}, "no list of layers"),
        ({"layers": ["x"]}, "no list of layers"),
        ({"layers": [LAYER] * 1001}, "no list of layers"),
        ({"layers": []}, "holds no file of a model"),
        ({"layers": [LAYER, LAYER]}, "two files that are both called `m.gguf`"),
        ({"layers": [LAYER | {"digest": "sha256:../../x"}]}, "whose digest is no sha256"),
        ({"layers": [LAYER | {"digest": None}]}, "whose digest is no sha256"),
        ({"layers": [LAYER | {"size": -1}]}, "has a layer of -1 bytes"),
        ({"layers": [LAYER | {"size": True}]}, "has a layer of True bytes"),
        ({"layers": [LAYER | {"size": 1 << 60}]}, "has a layer of 1152921504606846976 bytes"),
        *(
            ({"layers": [LAYER | {"annotations": {TITLE: name}}]}, "has a file")
            for name in ("/etc/m.gguf", "a/../../m.gguf", "a\nb", "a\\b", "a/.", ["x"] * 999)
        ),
        ({"mediaType": INDEX, "manifests": 7}, "an index of several artifacts"),
        ({"mediaType": INDEX, "manifests": [{"platform": {"os": "linux"}}] * 2}, "an index of several artifacts"),
        (
            {"mediaType": INDEX, "manifests": [{"digest": "sha256:../x", "platform": 7}]},
            "an index of several artifacts",
        ),
    ],
)
def test_a_manifest_that_is_no_models_is_refused(files: FileServer, manifest: dict[str, object], message: str) -> None:
    files.files["/v2/m/manifests/1"] = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST} | manifest).encode()
    source = oci.read(f"oci://{files.url.removeprefix('http://')}/m:1")
    with Client() as client, pytest.raises(RefusedError, match=message):
        oci.describe(source, client)


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"[" * 100_000, b'{"layers": ' + b"[" * 999, b'{"a": "\\ud800"}'])
def test_a_manifest_that_is_no_json_is_an_error(files: FileServer, data: bytes) -> None:
    files.files["/v2/m/manifests/1"] = data
    source = oci.read(f"oci://{files.url.removeprefix('http://')}/m:1")
    with Client() as client, pytest.raises(AikitError):
        oci.describe(source, client)


def table() -> list[tuple[str, str, str]]:
    """The rows of docs/pins.md: media type, how its file is named in the artifact, what it becomes."""
    text = (Path(__file__).parents[2] / "docs/pins.md").read_text().partition("### What is in an artifact")[2]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `application/")]
    return [
        (kind.strip(" `"), named.strip(" `"), becomes.strip(" `"))
        for _, kind, named, becomes in (["", *r] for r in rows)
    ]


def described(files: FileServer, *layers: Mapping[str, object]) -> oci.Description:
    whole = [{"digest": f"sha256:{number:064}", "size": 1, **layer} for number, layer in enumerate(layers)]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "x"}, "layers": whole}
    files.files["/v2/team/name/manifests/1"] = json.dumps(manifest).encode()
    with Client() as client:
        return oci.describe(oci.read(f"oci://{files.url.removeprefix('http://')}/team/name:1"), client)


@pytest.mark.parametrize(("kind", "named", "becomes"), table())
def test_each_row_of_the_table(files: FileServer, kind: str, named: str, becomes: str) -> None:
    layer: dict[str, object] = {"mediaType": kind}
    if named != "none":
        key, _, value = named.partition("=")
        layer["annotations"] = {key: value}
    beside = {"mediaType": "application/octet-stream", "annotations": {TITLE: "beside.txt"}}
    found = described(files, layer, beside)
    files_of_it = [blob for blob in found.blobs if blob.path != "beside.txt"]
    match becomes:
        case "left out":
            assert (files_of_it, found.left_out) == ([], ())
        case "left out, and said":
            assert files_of_it == []
            assert len(found.left_out) == 1
        case "its files":
            assert [blob.is_archive for blob in files_of_it] == [True]
        case _:
            assert [(f"/models/{blob.path}", blob.is_archive) for blob in files_of_it] == [(becomes, False)]
            assert files_of_it[0].is_gguf is (becomes.endswith(".gguf") or kind.endswith("ollama.image.model"))


def test_the_table_has_every_kind() -> None:
    for kind in oci.KINDS:
        assert any(re.fullmatch(kind.pattern, media_type) for media_type, _, _ in table()), kind.pattern


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("docker.ai.gguf.v3", ["name-00001-of-00003.gguf", "name-00002-of-00003.gguf", "name-00003-of-00003.gguf"]),
        ("ollama.image.model", ["name-00001-of-00003.gguf", "name-00002-of-00003.gguf", "name-00003-of-00003.gguf"]),
        ("docker.ai.safetensors", [f"name-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]),
        ("docker.ai.mmproj", ["mmproj-name-1.gguf", "mmproj-name-2.gguf", "mmproj-name-3.gguf"]),
        ("ollama.image.adapter", ["name-adapter-1.gguf", "name-adapter-2.gguf", "name-adapter-3.gguf"]),
    ],
)
def test_several_layers_of_one_type(files: FileServer, kind: str, names: list[str]) -> None:
    """Parts of a model are numbered in the order of the layers, whatever lies between them."""
    layer = {"mediaType": f"application/vnd.{kind}"}
    licence = {"mediaType": "application/vnd.docker.ai.license"}
    found = described(files, layer, licence, layer, layer)
    assert [blob.path for blob in found.blobs] == names
    assert [int(blob.sha256) for blob in found.blobs] == [0, 2, 3]
