"""Model artifacts as the field's tools put them into a registry, pushed through the registry's API."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
FILE_PATH = "org.cncf.model.filepath"


@dataclass(frozen=True)
class Layer:
    """A layer of an artifact."""

    media_type: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pusher:
    """Pushes into one repository; `login` is a user and a password."""

    registry: str
    repository: str
    login: tuple[str, str] | None = None

    def artifact(self, tag: str, layers: Sequence[Layer], config: str, kind: str | None = None) -> str:
        """Push an artifact whose config has this media type; gives its digest."""
        content: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(Layer(config, b"{}")),
            "layers": [self._blob(layer) for layer in layers],
        }
        if kind:
            content["artifactType"] = kind
        return self.manifest(tag, MANIFEST, content)

    def index(self, tag: str, platforms: Mapping[str, str]) -> str:
        """Push an index of artifacts: digests by `OS/ARCHITECTURE`."""
        listed = [
            {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": 1,
                "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
            }
            for platform, digest in platforms.items()
        ]
        return self.manifest(tag, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})

    def manifest(self, tag: str, media_type: str, content: Mapping[str, Any]) -> str:
        """Push any manifest."""
        data = json.dumps(content).encode()
        self._send("PUT", f"manifests/{tag}", data, media_type)
        return _digest(data)

    def _blob(self, layer: Layer) -> dict[str, Any]:
        digest = _digest(layer.data)
        location = self._send("POST", "blobs/uploads/", b"", "application/octet-stream")
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        self._send("PUT", target, layer.data, "application/octet-stream")
        described = {"mediaType": layer.media_type, "digest": digest, "size": len(layer.data)}
        return described | ({"annotations": dict(layer.annotations)} if layer.annotations else {})

    def _send(self, method: str, path: str, data: bytes, media_type: str) -> str:
        url = urljoin(f"http://{self.registry}/v2/{self.repository}/", path)
        request = urllib.request.Request(url, data, {"Content-Type": media_type}, method=method)
        if self.login:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(self.login).encode()).decode())
        with urllib.request.urlopen(request) as answer:
            return str(answer.headers.get("Location", ""))


def tar(files: Mapping[str, bytes], mode: str = "w", link: str | None = None) -> bytes:
    """A tar of files; with `link`, a symbolic link of that name, too."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
