"""Hugging Face: a file of a repository, or a whole repository.

Written as `huggingface://NAMESPACE/REPO[/BRANCH]/FILE`, `huggingface://NAMESPACE/REPO` or the address of a page or a file
on huggingface.co (hf.co). Pinned from what Hugging Face says of its files (huggingface_hub), without downloading them.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from aikit_nix.errors import error
from aikit_nix.sources import http
from aikit_nix.sources.names import RefusedError, file_name, relative_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub import HfApi

ADDRESS = "https://huggingface.co"
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
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
    """All files of a repository. `file` is the folder below /models: AIKit's, the repository's own name."""

    text: str
    repo: str
    revision: str

    @property
    def file(self) -> str:
        """The folder below /models that the files land in."""
        return self.repo


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as Hugging Face describes it. `sha256` is None for a small one, kept in git itself."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository at a commit, and what it says about itself."""

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
        raise error(f"HF_ENDPOINT is {named!r}: it must be an http(s) URL")
    return named or ADDRESS


def request(address: str) -> tuple[str, Mapping[str, str]]:
    """Where a file of Hugging Face is asked for on this machine, and with which headers: the user's token, if any."""
    there = endpoint() + address.removeprefix(ADDRESS)
    found = token()
    return there, {"Authorization": f"Bearer {found}"} if found else {}


def token() -> str | None:
    """The token that Hugging Face's own tools would use: HF_TOKEN, HF_TOKEN_PATH, ~/.cache/huggingface/token …"""
    from huggingface_hub import get_token

    return get_token()


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
    if not _REPO.fullmatch(f"{namespace}/{repo}"):
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


def read_page(text: str) -> HubFile | HubRepository | None:
    """Understand an address on huggingface.co; None where it is none of a model's. Raises RefusedError."""
    address = http.clean(text)
    parts = urlsplit(address)
    if parts.netloc.lower() not in _HOSTS:
        return None
    found = re.fullmatch(r"/([^/]+/[^/]+)(?:/?|/(resolve|blob|raw|tree)/([^/]+)(?:/(.*))?)", parts.path)
    if found is None or not _REPO.fullmatch(repo := unquote(found[1])) or repo.startswith(("datasets/", "spaces/")):
        return None
    revision, path = unquote(found[3] or "main"), unquote(found[4] or "")
    if found[2] in ("resolve", "blob", "raw") and path:
        return HubFile(text, repo, revision, path, file_name(http.base_name(parts.path)), folders=True)
    if found[2] in (None, "tree") and not path.strip("/"):
        return HubRepository(text, repo, revision)
    return None


def note(source: HubFile) -> str | None:
    """What becomes of the author's text where that is not obvious."""
    if source.folders and "/resolve/" in source.text:
        return None
    return f"is fetched from {source.url}" + (f"; `{source.dropped}` is dropped" if source.dropped else "")


# --- How it is pinned


def describe(repo: str, revision: str) -> Repository:
    """What Hugging Face says of a repository at a revision: one request, no weights.

    Raises AikitError where it is not there, not open to this user, or Hugging Face does not answer.
    """
    from huggingface_hub import errors

    where = f"{repo} on Hugging Face"
    try:
        said = _api().model_info(repo, revision=revision, files_metadata=True, timeout=60)
    except errors.GatedRepoError:
        raise error(_gated(repo)) from None
    except errors.RepositoryNotFoundError:
        hint = "check the name" if token() else "check the name, or set HF_TOKEN if it is private"
        raise error(f"{where} is not there: {hint}") from None
    except errors.RevisionNotFoundError:
        raise error(f"{where} has no branch, tag or commit {revision!r}: name another") from None
    except errors.OfflineModeIsEnabled:
        raise error(f"{where} cannot be asked: HF_HUB_OFFLINE is set") from None
    except errors.HfHubHTTPError as failed:
        raise error(f"{where} {_status(getattr(failed.response, 'status_code', 0))}") from None
    except (OSError, ValueError) as failed:
        raise error(f"{where} cannot be asked: {_reason(failed)}") from None
    except Exception as failed:  # huggingface_hub lets its HTTP library's errors through, and that library changes
        if not type(failed).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise error(f"{where} cannot be asked: {_reason(failed)}") from None
    commit = str(said.sha or "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise error(f"{where} gave no commit for {revision!r}: is {endpoint()} Hugging Face?")
    files = {}
    for sibling in said.siblings or ():
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise error(f"{where} gave {sha256!r} as the SHA-256 of {sibling.rfilename}")
        files[sibling.rfilename] = RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256)
    card: dict[str, object] = dict(vars(said.card_data)) if said.card_data else {}
    return Repository(
        str(said.id),
        commit,
        files,
        bool(said.gated or said.private),
        _text(card.get("license")),
        _texts(card.get("base_model")),
    )


def chosen(source: HubFile | HubRepository, repository: Repository) -> tuple[RemoteFile, ...]:
    """The files of a repository that a source means. Raises RefusedError."""
    if isinstance(source, HubFile):
        if source.path not in repository.files:
            near = [path for path in repository.files if path.lower().endswith(".gguf")] or list(repository.files)
            some = ", ".join(map(posixpath.basename, near[:8])) + (" …" if len(near) > 8 else "")
            raise RefusedError(f"is not in the repository, which has: {some or 'nothing'}")
        return (repository.files[source.path],)
    ggufs = [path for path in repository.files if path.lower().endswith(".gguf")]
    if len(ggufs) > 1 and len({_stem(path) for path in ggufs}) > 1:
        raise RefusedError(
            f"is a repository of {len(ggufs)} GGUF files, alternatives of one another: name one,"
            f" as huggingface://{source.repo}/{posixpath.basename(ggufs[0])}"
        )
    found = tuple(file for path, file in sorted(repository.files.items()) if path not in LEFT_OUT)
    if not found:
        raise RefusedError("is a repository without any file of a model")
    for file in found:
        relative_path(file.path)
    return found


def pinned(source: HubFile, commit: str) -> HubFile:
    """The same file at a commit."""
    return replace(source, revision=commit)


def _stem(path: str) -> str:
    """A sharded GGUF's name without the number of the shard."""
    return re.sub(r"-\d{5}-of-\d{5}\.gguf$", "", path, flags=re.IGNORECASE)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    from aikit_nix import __version__

    return HfApi(endpoint=endpoint(), library_name="aikit-nix", library_version=__version__, token=token() or False)


def _gated(repo: str) -> str:
    page = f"{ADDRESS}/{repo}"
    return (
        f"{repo} on Hugging Face is gated: accept its terms on {page} and set HF_TOKEN"
        if not token()
        else f"{repo} on Hugging Face is gated and the token has no access: accept its terms on {page}"
    )


def _status(code: int) -> str:
    """Most answers have an error of their own: these come from mirrors, and when Hugging Face has a bad day."""
    hint = {
        401: "is not open without a token: set HF_TOKEN",
        403: "is not open to this user: look at its page, and at HF_TOKEN",
        404: "is not there: check the name and the revision",
        429: "cannot be asked: too many requests, wait some minutes or set HF_TOKEN",
    }
    return hint.get(code, f"cannot be asked: {endpoint()} answered {code or 'nothing'}, try again later")


def _reason(failed: Exception) -> str:
    return " ".join(str(failed).split())[:300] or type(failed).__name__


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if (text := _text(each)))
