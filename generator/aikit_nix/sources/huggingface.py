"""Hugging Face: a file of a repository, or a whole repository.

Written as `huggingface://NAMESPACE/REPO[/BRANCH]/FILE`, `huggingface://NAMESPACE/REPO` or the address of a page or a file
on huggingface.co (hf.co). Pinned from what Hugging Face says of its files, without downloading them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from msgspec import Meta, Struct

from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import AikitError, RefusedError, error
from aikit_nix.base.redact import blank
from aikit_nix.sources.names import file_name, relative_path, unprintable

if TYPE_CHECKING:
    from aikit_nix.http.client import Client, HttpError

ADDRESS = "https://huggingface.co"
_MOST_IN_GIT = 10 << 20  # bytes: Hugging Face keeps what is larger elsewhere, by its SHA-256
_TOKEN_LIMIT = 1 << 16  # bytes
REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
# What AIKit v0.21 leaves out of a whole repository, and what no server reads.
LEFT_OUT = (".gitattributes", ".gitignore", "README.md", "LICENSE")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a branch, tag or commit. `file` is its base name in the image.

    `folders` is whether a model's name with `/` chooses a folder for it, as for any other URL.
    """

    text: str
    repo: str
    revision: str
    path: str
    file: str
    folders: bool = False
    dropped: str = ""

    @property
    def url(self) -> str:
        """The address of the file."""
        return url(self.repo, self.revision, self.path)


@dataclass(frozen=True)
class HubRepository:
    """All files of a repository, or of a folder in it. `file` is the folder below /models: AIKit's, the repository's own name."""

    text: str
    repo: str
    revision: str
    folder: str = ""

    @property
    def file(self) -> str:
        """The folder below /models that the files land in."""
        return self.repo


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as Hugging Face describes it. `sha256` is None for a small one, kept in git itself.

    Mirrors may say neither that nor the size.
    """

    path: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class HubContents:
    """A repository at a commit, and what it says about itself. `repo` is as it was asked for: an old name leads to the new."""

    repo: str
    commit: str
    files: Mapping[str, RemoteFile]
    is_private: bool  # gated, or open to some only: Nix cannot fetch from it
    license: str | None
    base_models: tuple[str, ...]


def url(repo: str, revision: str, path: str) -> str:
    """The address of a file, on Hugging Face itself: what a lock and a flake say."""
    return f"{ADDRESS}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def endpoint() -> str:
    """Hugging Face, or what HF_ENDPOINT names in its place (as for Hugging Face's own tools)."""
    named = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if named and not re.match(r"https?://[^/]", named):
        raise error(f"HF_ENDPOINT is {blank(named)!r}: it must be an http(s) URL")
    return named or ADDRESS


def request(address: str) -> tuple[str, Mapping[str, str]]:
    """Where something of Hugging Face is asked for on this machine, and with which headers: the user's token, if any.

    An address elsewhere (a lock may say anything) is asked for as it is, without the token.
    """
    if not address.startswith(ADDRESS + "/"):
        return address, {}
    there = endpoint() + address.removeprefix(ADDRESS)
    found = token()
    return there, {"Authorization": f"Bearer {found}"} if found else {}


def token() -> str | None:
    """The token that Hugging Face's own tools would use. Source: huggingface_hub's constants.py and utils/_auth.py."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if said := os.environ.get(variable, "").strip():
            return said
    cache = Path(os.environ.get("XDG_CACHE_HOME") or files.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
    try:
        return files.read_bounded(file, _TOKEN_LIMIT).decode().strip() or None if file.exists() else None
    except (OSError, AikitError, ValueError):
        raise error(
            f"the token for Hugging Face cannot be read ({file}): set HF_TOKEN, or write it anew with `hf auth login`"
        ) from None


# --- How it is written


def read(text: str) -> HubFile | HubRepository:
    """Understand a huggingface:// address. Raises RefusedError."""
    rest, query, dropped = text.partition("://")[2].partition("?")
    parts = rest.removesuffix("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise RefusedError("names no repository: write huggingface://NAMESPACE/REPO/FILE")
    namespace, repo = parts[:2]
    repo, mark, revision = repo.replace(":", "@").partition("@")
    if any(part in (".", "..") for part in parts) or re.search(r"[\s\\%#]", rest):
        raise RefusedError("is no huggingface:// address: write huggingface://NAMESPACE/REPO/FILE")
    if not REPO.fullmatch(f"{namespace}/{repo}"):
        raise RefusedError(f"names no repository: `{namespace}/{repo}`")
    if len(parts) == 2:
        return HubRepository(text, f"{namespace}/{repo}", revision or "main")
    if mark:
        raise RefusedError(
            f"names a revision in a way that no AIKit understood: write huggingface://{namespace}/{repo}/{revision}/{parts[-1]}"
        )
    if len(parts) > 4:
        raise RefusedError(
            "has more than NAMESPACE/REPO/BRANCH/FILE, of which AIKit dropped the end:"
            f" write {ADDRESS}/{parts[0]}/{parts[1]}/resolve/BRANCH/PATH"
        )
    branch = parts[2] if len(parts) == 4 else "main"
    return HubFile(
        text, f"{namespace}/{repo}", branch, parts[-1], file_name(parts[-1]), dropped=f"?{dropped}" if query else ""
    )


def note(source: HubFile) -> str | None:
    """What becomes of the author's text where that is not obvious."""
    if source.folders and "/resolve/" in source.text:
        return None
    return f"is fetched from {source.url}" + (f"; `{source.dropped}` is dropped" if source.dropped else "")


# --- How it is pinned


def describe(repo: str, revision: str, client: Client, path: str = "") -> HubContents:
    """What Hugging Face says of a repository at a revision: one request, no weights. `path` is what is wanted of it.

    Raises AikitError where it is not there, not open to this user, or Hugging Face does not answer.
    """
    from aikit_nix.http.client import HttpError

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise error(f"{repo} on Hugging Face cannot be asked: HF_HUB_OFFLINE is set")
    address, headers = request(f"{ADDRESS}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true")
    try:
        said = client.get(address, headers=headers).json()
    except HttpError as refused:
        if refused.headers.get("X-Error-Code") == "RevisionNotFound" and path and revision != "main":
            inner = f"{revision}/{path}"
            if inner in describe(repo, "main", client).files:
                raise error(
                    f"{repo} on Hugging Face has no branch, tag or commit {revision!r}, but a folder: write {url(repo, 'main', inner)}"
                ) from None
        raise _refused(repo, revision, refused) from None
    with typed_json.refusing(
        f"{repo} on Hugging Face is described in a way that cannot be read", f"is {blank(endpoint())} Hugging Face?"
    ):
        found = typed_json.convert(said, _Said)
    remote = (RemoteFile(each.rfilename, each.size, each.lfs.sha256 if each.lfs else None) for each in found.siblings)
    private, card = bool(found.gated or found.private), found.cardData or {}
    there = {file.path: file for file in remote}
    return HubContents(repo, found.sha, there, private, _text(card.get("license")), _texts(card.get("base_model")))


class _Lfs(Struct):
    sha256: typed_json.Sha256


class _Sibling(Struct):
    rfilename: str
    size: Annotated[int, Meta(ge=0, lt=1 << 50)] | None = None
    lfs: _Lfs | None = None


class _Said(Struct):
    """What Hugging Face says of a repository."""

    sha: Annotated[str, typed_json.form("[0-9a-f]{40}", "no commit")]
    siblings: tuple[_Sibling, ...]
    gated: Any = None
    private: Any = None
    cardData: Mapping[str, Any] | None = None  # noqa: N815 (a JSON name)


def _refused(repo: str, revision: str, refused: HttpError) -> AikitError:
    """What a refusal means, and what to do. Source: huggingface_hub's hf_raise_for_status."""
    where = f"{repo} on Hugging Face"
    code = refused.headers.get("X-Error-Code")
    match code, refused.status:
        case "GatedRepo", _:
            return error(
                f"{where} is gated: accept its terms on {ADDRESS}/{repo}, and set HF_TOKEN to a token that may read it"
            )
        case "RevisionNotFound", _:
            return error(f"{where} has no branch, tag or commit {revision!r}: name another")
        case _, 401 if "Invalid credentials" in refused.headers.get("X-Error-Message", ""):
            return error(
                f"{where} cannot be asked: Hugging Face does not take the token: set HF_TOKEN anew, or `hf auth login`"
            )
        case ("RepoNotFound", _) | (_, 401 | 404):
            hint = (
                "check the name, and that the token may read it"
                if token()
                else "check the name, or set HF_TOKEN if it is private"
            )
            return error(f"{where} is not there: {hint}")
        case _, 403:
            return error(f"{where} is not open to this user: look at its page, and at HF_TOKEN")
        case _, 429:
            return error(f"{where} cannot be asked: too many requests, wait some minutes or set HF_TOKEN")
    return error(f"{where} cannot be asked: {refused.message}")


def complete(file: RemoteFile, repository: HubContents, client: Client) -> RemoteFile:
    """A file with what its own address says of it, where the description left that out. Raises HttpError."""
    if file.size is not None and (file.sha256 or file.size <= _MOST_IN_GIT):
        return file
    address, headers = request(url(repository.repo, repository.commit, file.path))
    said = client.head(address, headers=headers).headers
    digest = said.get("X-Linked-Etag", "").strip('"')
    size = said.get("X-Linked-Size") or said.get("Content-Length") or ""
    return RemoteFile(
        file.path,
        int(size) if re.fullmatch(r"[0-9]{1,15}", size) else file.size,
        digest if re.fullmatch(r"[0-9a-f]{64}", digest) else file.sha256,
    )


def chosen(source: HubFile | HubRepository, repository: HubContents) -> tuple[RemoteFile, ...]:
    """The files of a repository that a source means. Raises RefusedError."""
    there = repository.files
    ggufs = [path for path in there if path.lower().endswith(".gguf")]
    if isinstance(source, HubFile):
        if source.path in there:
            return (there[source.path],)
        same = [path for path in there if posixpath.basename(path) == source.file]
        near = same or ggufs or list(there)
        some = ", ".join(_written(source, path) if same else path for path in near[:8]) + (
            " …" if len(near) > 8 else ""
        )
        raise RefusedError(f"is not in the repository, which has: {some or 'nothing'}")
    if source.folder in there:
        raise RefusedError(f"is a file, no folder: write {_written(source, source.folder)}")
    below = f"{source.folder}/" if source.folder else ""
    ggufs = [path for path in ggufs if path.startswith(below)]
    if len(ggufs) > 1 and len({_stem(path) for path in ggufs}) > 1:
        raise RefusedError(
            f"is a repository of {len(ggufs)} GGUF files, alternatives of one another: name one,"
            f" as {_written(source, ggufs[0])}"
        )
    found = tuple(file for path, file in sorted(there.items()) if path not in LEFT_OUT and path.startswith(below))
    if not found:
        folders = sorted({posixpath.dirname(path) for path in there} - {""})
        more = f": it has the folders {', '.join(folders[:8])}" if source.folder and folders else ""
        raise RefusedError(f"is a {'folder' if source.folder else 'repository'} without any file of a model{more}")
    for file in found:
        relative_path(file.path)
    return found


def _written(source: HubFile | HubRepository, path: str) -> str:
    """How an aikitfile names a file of the same repository."""
    if "/" in path or source.revision != "main":
        return url(source.repo, source.revision, path)
    return f"huggingface://{source.repo}/{path}"


def _stem(path: str) -> str:
    """A sharded GGUF's name without the number of the shard."""
    return re.sub(r"-\d{5}-of-\d{5}\.gguf$", "", path, flags=re.IGNORECASE)


def _text(value: object) -> str | None:
    """A text of the model's card, which anybody may have written: what a lock cannot hold is left out."""
    return value if isinstance(value, str) and value and not unprintable(value) else None


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if (text := _text(each)))
