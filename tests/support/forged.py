"""Images that a container engine runs otherwise than the honest one that they are made from, with right digests all over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aikit_nix.image.layout import LAYER
from aikit_nix.registry.reference import digest_of
from support import layouts, tars


@dataclass
class Parts:
    """An OCI layout as its files say it: changed in place, and written again."""

    folder: Path
    index: dict[str, Any]
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.config["config"]
        return run

    def blob(self, data: bytes) -> dict[str, Any]:
        """Put a blob there; its digest and size."""
        (self.folder / "blobs" / digest_of(data).replace(":", "/")).write_bytes(data)
        return {"digest": digest_of(data), "size": len(data)}

    def replace_layer(self, index: int, data: bytes) -> None:
        self.manifest["layers"][index] |= self.blob(data)
        self.config["rootfs"]["diff_ids"][index] = digest_of(data)

    def add_layer(self, data: bytes) -> None:
        self.manifest["layers"].append({"mediaType": LAYER, **self.blob(data)})
        self.config["rootfs"]["diff_ids"].append(digest_of(data))
        self.config["history"].append({"created_by": "dockerTools: engine"})

    def swap_layers(self) -> None:
        for listed in (self.manifest["layers"], self.config["rootfs"]["diff_ids"], self.config["history"]):
            listed.reverse()


@contextmanager
def changed(layout: Path, to: Path, text: Callable[[str, str], str] = lambda _, text: text) -> Iterator[Parts]:
    """A copy of a layout, to be changed in the block; `text` may change the JSON of `index`, `manifest` and `config`."""
    shutil.copytree(layout, to)
    parts = Parts(to, json.loads((to / "index.json").read_text()), {}, {})
    parts.manifest = json.loads(_blob(to, parts.index["manifests"][0]).read_text())
    parts.config = json.loads(_blob(to, parts.manifest["config"]).read_text())
    yield parts
    config = parts.blob(text("config", _json(parts.config)).encode())
    if isinstance(described := parts.manifest.get("config"), dict):
        described |= config
    manifest = parts.blob(text("manifest", _json(parts.manifest)).encode())
    if isinstance(listed := parts.index.get("manifests"), list) and listed and isinstance(listed[0], dict):
        listed[0] |= manifest
    (to / "index.json").write_text(text("index", _json(parts.index)))


def _blob(layout: Path, described: dict[str, Any]) -> Path:
    return layout / "blobs" / str(described["digest"]).replace(":", "/")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


EVIL = layouts.layer(("etc/ld.so.preload", b"/evil.so\n"))

PARTS: dict[str, Callable[[Parts], object]] = {
    "Entrypoint": lambda image: image.run.update(Entrypoint=["/bin/sh"]),
    "no Entrypoint": lambda image: image.run.pop("Entrypoint"),
    "Cmd": lambda image: image.run.update(Cmd=["--api-key", "x"]),
    "User": lambda image: image.run.update(User="0:0"),
    "Env": lambda image: image.run["Env"].append("LD_PRELOAD=/models/evil.so"),
    "the order of Env": lambda image: image.run["Env"].reverse(),
    "WorkingDir": lambda image: image.run.update(WorkingDir="/models"),
    "Volumes": lambda image: image.run.update(Volumes={"/models": {}}),
    "Healthcheck": lambda image: image.run.update(Healthcheck={"Test": ["CMD", "/evil"]}),
    "ExposedPorts": lambda image: image.run.update(ExposedPorts={"22/tcp": {}}),
    "a label": lambda image: image.run["Labels"].update(a="b"),
    "StopSignal": lambda image: image.run.update(StopSignal="SIGKILL"),
    "Shell": lambda image: image.run.update(Shell=["/evil"]),
    "OnBuild": lambda image: image.run.update(OnBuild=["RUN evil"]),
    "architecture": lambda image: image.config.update(architecture="arm64"),
    "os": lambda image: image.config.update(os="windows"),
    "variant": lambda image: image.config.update(variant="v3"),
    "created": lambda image: image.config.update(created="2020-01-01T00:00:00Z"),
    "history": lambda image: image.config["history"][0].update(created_by="model layer: /models/other.gguf"),
    "Config beside config": lambda image: image.config.update(Config={"Entrypoint": ["/bin/sh"]}),
    "CONFIG alone": lambda image: image.config.update(CONFIG=image.config.pop("config")),
    "RootFS": lambda image: image.config.update(RootFS={"type": "layers", "diff_ids": []}),
    "entrypoint beside Entrypoint": lambda image: image.run.update(entrypoint=["/bin/sh"]),
    "Layers beside layers": lambda image: image.manifest.update(Layers=[]),
    "an annotation": lambda image: image.manifest["annotations"].update(a="b"),
    "no annotations": lambda image: image.manifest.pop("annotations"),
    "a subject": lambda image: image.manifest.update(subject=image.manifest["config"]),
    "URLs of a layer": lambda image: image.manifest["layers"][0].update(urls=["https://evil.example/x"]),
    "a layer's kind": lambda image: image.manifest["layers"][1].update(mediaType=f"{LAYER}+zstd"),
    "a configuration's kind for a layer": lambda image: image.manifest["layers"][1].update(
        mediaType=image.manifest["config"]["mediaType"]
    ),
    "a layer's kind for the configuration": lambda image: [
        image.manifest["config"].update(mediaType=LAYER),
        image.manifest["layers"][1].update(mediaType="application/vnd.docker.image.rootfs.diff.tar"),
    ],
    "a layer that is none": lambda image: image.manifest["layers"][1].update(mediaType="text/plain"),
    "a foreign layer": lambda image: image.add_layer(EVIL),
    "another layer": lambda image: image.replace_layer(1, EVIL),
    "a layer twice": lambda image: image.add_layer(image.folder.joinpath(*_place(image, 1)).read_bytes()),
    "the order of layers": lambda image: image.swap_layers(),
    "no texts": lambda image: [each.pop() for each in _lists(image)],
    "no model": lambda image: [each.pop(0) for each in _lists(image)],
    "another model": lambda image: image.replace_layer(0, _model(image, b"other weights")),
    "a model's layer that is not by the rule": lambda image: image.replace_layer(
        0, layouts.tar({"models/llama.gguf": _weights(image)})
    ),
    "a model's layer with a tail": lambda image: image.replace_layer(0, _model(image, _weights(image)) + bytes(512)),
    "two platforms": lambda image: image.index["manifests"].append(image.index["manifests"][0]),
    "the platform": lambda image: image.index["manifests"][0]["platform"].update(architecture="arm64"),
    "a name": lambda image: image.index["manifests"][0]["annotations"].update(
        {"io.containerd.image.name": "docker.io/library/nginx:latest"}
    ),
    "Manifests beside manifests": lambda image: image.index.update(Manifests=[]),
}
for _name, _trick in tars.tricks(b"/evil.so\n").items():
    PARTS[f"a layer with {_name}"] = lambda image, trick=_trick: image.add_layer(trick)  # type: ignore[misc]
    PARTS[f"texts with {_name}"] = lambda image, trick=_trick: image.replace_layer(1, trick)  # type: ignore[misc]

# What no object of a program says: keys that are there twice, texts in other words.
TEXTS: dict[str, tuple[str, str, str]] = {
    "a doubled config": ("config", '{"architecture"', '{"config":{"Entrypoint":["/bin/sh"]},"architecture"'),
    "a doubled Entrypoint": ("config", '"Entrypoint":', '"Entrypoint":["/bin/sh"],"Entrypoint":'),
    "doubled diff_ids": ("config", '"diff_ids":', '"diff_ids":[],"diff_ids":'),
    "doubled layers": ("manifest", '"layers":', '"layers":[],"layers":'),
    "doubled manifests": ("index", '"manifests":', '"manifests":[],"manifests":'),
    "a doubled digest": ("index", '"digest":', f'"digest":"sha256:{"0" * 64}","digest":'),
    "white space": ("config", '"rootfs":', '"rootfs": '),
}


def _lists(image: Parts) -> list[list[Any]]:
    return [image.manifest["layers"], image.config["rootfs"]["diff_ids"], image.config["history"]]


def _place(image: Parts, index: int) -> list[str]:
    return ["blobs", *str(image.manifest["layers"][index]["digest"]).split(":")]


def _weights(image: Parts) -> bytes:
    return image.folder.joinpath(*_place(image, 0)).read_bytes()[4096:][:2000]


def _model(image: Parts, content: bytes) -> bytes:
    file = image.folder / "weights"
    file.write_bytes(content)
    from aikit_nix.models import layer

    return b"".join(layer.blocks("/models/llama.gguf", file))
