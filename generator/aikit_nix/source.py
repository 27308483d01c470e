"""Where a model comes from and what its file is called in the image, by AIKit v0.11's rules.

Nothing here touches the network or the disk.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

MODELS = "/models"
_NAME_MAX = 255  # bytes of one path component, on every Linux file system
_PATH_MAX = 4096  # bytes of a path that Linux takes; what is put before and behind a name here needs some of them
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?"
)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")
# RFC 3986, less the brackets, which curl would read as a pattern
_URL_SAFE = "!#$%&'()*+,-./:;=?@_~"


class RefusedError(ValueError):
    """A source that cannot be used; the message says why and what to do instead."""


@dataclass(frozen=True)
class Source:
    """A source as aikit-nix uses it: `url` is None for a local file, `file` the base name of the file in the image.

    `folders` is whether a model's name with `/` chooses a folder for it. `note` says what became of the author's text
    where that is not obvious.
    """

    text: str
    url: str | None
    file: str
    folders: bool = False
    note: str | None = None


def read(text: str) -> Source:
    """Understand a `source:`. Raises RefusedError."""
    if not text:
        raise RefusedError("is empty: give a URL or a file beside the aikitfile")
    bad = unprintable(text)
    if bad:
        raise RefusedError(f"holds {bad}, which neither a URL nor a path may")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _local(text)
    match scheme.group().lower():
        case "http:" | "https:":
            return _web(text)
        case "huggingface:":
            return _huggingface(text)
        case "oci:":
            raise RefusedError(
                "is in a registry, which has no plain download: fetch it once (`oras pull`, `ollama pull`) and give the file's"
                " path, or give the https URL of the same GGUF"
            )
        case "file:":
            raise RefusedError("is a file: URL, which AIKit refused too: give a path relative to the aikitfile")
        case other:
            raise RefusedError(
                f"has the scheme `{other}//`, which AIKit refused too: give an http(s) URL or a file beside the aikitfile"
            )


def destination(source: Source, name: str) -> str:
    """The path in the image."""
    folder = posixpath.dirname(name) if source.folders else ""
    return posixpath.normpath(posixpath.join(MODELS, folder, source.file))


def name_problem(name: str) -> str | None:
    """Why a model's or a template's name cannot become a path below /models; None where it can."""
    bad = unprintable(name)
    if bad:
        return f"holds {bad}"
    if name.startswith("/"):
        return "begins with `/`: it is a path below /models"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "holds `..`, which would leave /models"
    if "" in parts:
        return "has an empty part between two `/`"
    if problem := _too_long(name):
        return problem
    long = next((part for part in parts if len(part.encode(errors="replace")) > _NAME_MAX - len(".tmpl")), None)
    return f"has a part of more than {_NAME_MAX - len('.tmpl')} bytes" if long else None


def _too_long(path: str) -> str | None:
    most = _PATH_MAX // 2
    return f"has more than {most} bytes" if len(path.encode(errors="replace")) > most else None


def unprintable(text: str) -> str | None:
    """A word on the first control character or lone surrogate of a text; None where it has none."""
    if text.isascii() and text.isprintable():
        return None  # nearly all texts, and a file may hold thousands
    match = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)
    return f"the character U+{ord(match.group()):04X}" if match else None


def _local(text: str) -> Source:
    if text.startswith("/"):
        raise RefusedError("is an absolute path, which AIKit refused too: give a path relative to the aikitfile")
    if text.startswith("~/"):
        raise RefusedError("begins with `~`, which no shell expands here: give a path relative to the aikitfile")
    if ".." in text.split("/"):
        raise RefusedError(
            "leaves the aikitfile's folder, beyond which AIKit saw nothing: move or link the file into it"
        )
    if text.endswith("/") or posixpath.normpath(text) == ".":
        raise RefusedError("is a folder: list each of its files as a model of its own")
    if problem := _too_long(text):
        raise RefusedError(problem)
    return Source(text, None, _file_name(posixpath.basename(text)))


def _web(text: str) -> Source:
    if re.search(r"\s", text):
        raise RefusedError("holds white space: write %20 for a blank")
    if "\\" in text:
        raise RefusedError("holds a backslash: write / or %5C")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedError("is no URL: check its host and port") from None
    if "@" in parts.netloc:
        raise RefusedError("holds a user name or password, which would end up in the flake and the image: remove it")
    host = parts.netloc.rpartition(":")[0] if port is not None or parts.netloc.endswith(":") else parts.netloc
    if not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)) or len(host) > 253:
        raise RefusedError(f"has no usable host: `{host}`")
    if re.search(r"%(?![0-9A-Fa-f]{2})", parts.path):
        raise RefusedError("holds a `%` that is not followed by two hex digits: write %25")
    try:
        decoded = unquote_to_bytes(parts.path).decode()
    except UnicodeDecodeError:
        raise RefusedError("has a path that is not UTF-8 after decoding its %xx") from None
    # Go's path.Base: trailing slashes do not count
    file = posixpath.basename(decoded.rstrip("/"))
    if not file:
        raise RefusedError("names no file: its path is empty")
    behind_host = text[len(parts.scheme) + len("://") + len(parts.netloc) :]
    url = f"{parts.scheme}://{parts.netloc}{quote(behind_host, safe=_URL_SAFE)}"
    return Source(url, url, _file_name(file), folders=True)


def _huggingface(text: str) -> Source:
    rest, query, _ = text.partition("://")[2].partition("?")
    parts = rest.split("/")
    if len(parts) < 3 or not all(parts):
        raise RefusedError(
            "names no file of a repository: write huggingface://NAMESPACE/REPO/FILE, one model for each file"
        )
    if len(parts) > 4:
        raise RefusedError(
            "has more than NAMESPACE/REPO/BRANCH/FILE, of which AIKit dropped the end:"
            f" write https://huggingface.co/{parts[0]}/{parts[1]}/resolve/BRANCH/PATH"
        )
    namespace, repo, *branch, file = parts
    if "@" in repo or ":" in repo:
        plain, _, revision = repo.replace(":", "@").partition("@")
        raise RefusedError(
            f"names a revision in a way that no AIKit understood: write huggingface://{namespace}/{plain}/{revision}/{file}"
        )
    if any(part in (".", "..") for part in parts) or re.search(r"[\s\\%#]", rest):
        raise RefusedError("is no huggingface:// address: write huggingface://NAMESPACE/REPO/FILE")
    url = f"https://huggingface.co/{quote(namespace)}/{quote(repo)}/resolve/{quote(branch[0] if branch else 'main')}/{quote(file)}"
    note = f"is fetched from {url}" + (f"; `?{text.partition('?')[2]}` is dropped" if query else "")
    return Source(url, url, _file_name(file), note=note)


def _file_name(file: str) -> str:
    if file in ("", ".", "..") or "/" in file:
        raise RefusedError(f"names no file: `{file}` is a folder")
    bad = unprintable(file)
    if bad:
        raise RefusedError(f"has a file name that holds {bad}")
    if len(file.encode()) > _NAME_MAX:
        raise RefusedError(f"has a file name of more than {_NAME_MAX} bytes")
    return file
