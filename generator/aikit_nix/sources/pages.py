"""Addresses that a browser shows on a hub: understood, or refused with the form that works. A page is never a model.

Sources: huggingface_hub's hf_api.repo_type_and_id_from_hf_id and file_download, ModelScope's file_download.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from aikit_nix.base.errors import RefusedError
from aikit_nix.sources import http, huggingface
from aikit_nix.sources.huggingface import ADDRESS, HubFile, HubRepository
from aikit_nix.sources.names import file_name

_HUGGING_FACE = ("huggingface.co", "www.huggingface.co", "hf.co")
_MIRRORS = ("hf-mirror.com", "www.hf-mirror.com")
_MODELSCOPE = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")
# A branch's slashes are written %2F; but those of what Hugging Face makes itself may stand as they are.
_PAGE = re.compile(r"/([^/]+/[^/]+)(?:/?|/(resolve|blob|raw|tree)/(refs/(?:pr/\d+|convert/\w+)|[^/]+)(?:/(.*))?)")


def read(text: str) -> HubFile | HubRepository | None:
    """Understand an address of a hub; None where it is a file's on any host. Raises RefusedError."""
    address = urlsplit(http.clean(text))
    host = address.netloc.lower()
    if host in _HUGGING_FACE:
        return _hugging_face(text, address.path, address.query)
    if host in _MIRRORS and (page := re.fullmatch(r"(/.+?)/(blob|raw|tree)/(.+)", address.path)):
        where = page[3] if page[2] != "tree" else page[3].rstrip("/") + "/FILE"
        raise RefusedError(f"is a page: write {address.scheme}://{host}{page[1]}/resolve/{where}")
    if host in _MODELSCOPE and (page := re.match(r"(/(?:models|datasets)/[^/]+/[^/]+)(.*)", address.path)):
        view = re.fullmatch(r"/file/view/([^/]+)/(.+)", page[2])
        if not page[2].startswith("/resolve/"):
            where = f"{view[1]}/{view[2]}" if view else "master/FILE"
            raise RefusedError(f"is a page: write {address.scheme}://{host}{page[1]}/resolve/{where}")
    return None


def _hugging_face(text: str, path: str, query: str) -> HubFile | HubRepository | None:
    """A page or a file of a model is one of the hub's; of a dataset, a space or an old name a file can be had by its address."""
    found = _PAGE.fullmatch(path)
    repo = unquote(found[1]) if found else ""
    if found is None or not huggingface.REPO.fullmatch(repo) or repo.startswith(("datasets/", "spaces/")):
        if re.match(r"/((datasets|spaces)/)?[^/]+(/[^/]+)?/resolve/[^/]+/.|/api/", path):
            return None
        file = re.fullmatch(r"(/(?:datasets|spaces)/[^/]+/[^/]+)/(?:blob|raw)/(.+)", path)
        where = f"{ADDRESS}{file[1]}/resolve/{file[2]}" if file else f"{ADDRESS}/NAMESPACE/REPO/resolve/main/FILE"
        raise RefusedError(f"is a page: write {where}")
    revision, inner = unquote(found[3] or "main"), unquote(found[4] or "").strip("/")
    if shown := parse_qs(query).get("show_file_info"):  # a click on a GGUF
        inner = shown[0]
    elif found[2] in (None, "tree"):
        return HubRepository(text, repo, revision, inner)
    if not inner:
        raise RefusedError(f"names no file: write {ADDRESS}/{repo}/resolve/{found[3]}/FILE")
    return HubFile(text, repo, revision, inner, file_name(inner.rpartition("/")[2]), folders=True)
